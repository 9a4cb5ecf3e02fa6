// A policy in JavaScript that fails as its parameter `case` says.

import { loadByName } from 'wasi:nn/graph@0.2.0-rc-2024-10-28';
import { reported } from './panics.js';

const MANIFEST = {
  manifest_version: 1,
  name: 'faulty-javascript',
  version: '0.1.0',
  description: 'Fails as it is told.',
  score_kind: 'blend',
  fields: [],
  parameters: { type: 'object', properties: { case: { type: 'string' } } },
};

export const policy = {
  describe: () => JSON.stringify(MANIFEST),
  rerank: reported(rerank),
};

function rerank(request) {
  switch (JSON.parse(request.parameters).case) {
    case 'refuses':
      throw { tag: 'invalid-request', val: '`case`: the policy refuses it' };
    case 'internal':
      throw { tag: 'internal', val: 'it does not know' };
    case 'foreign-model':
      try {
        loadByName('other');
      } catch (error) {
        throw { tag: 'model', val: error.payload.data() };
      }
      return [];
    case 'throws':
      throw new RangeError('no such case');
    case 'loops':
      for (;;);
    case 'grows':
      return Array.from({ length: 1 << 20 }, () => new Uint8Array(1 << 20));
    case 'recurses':
      return rerank(request);
  }
}
