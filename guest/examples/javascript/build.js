// Makes a component of a policy: node build.js POLICY.js OUT.wasm
//
// The cases beside the policy, cases/*.json, become a part of the component: docs/cases.md.

import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, resolve } from 'node:path';

import { componentize } from '@bytecodealliance/componentize-js';

import { withoutPaths } from './paths.js';

const [policy, out] = process.argv.slice(2).map((path) => resolve(path));

const { component } = await componentize({
  sourcePath: policy,
  witPath: resolve(import.meta.dirname, '../../../wit'),
  worldName: 'reranker',
  // All there are: then nothing of WASI is left in the component.
  disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
});

// The engine's memory was saved as it was, with the paths of this machine in it.
const named = withoutPaths(component, dirname(policy), tmpdir());
const cases = await readCases(resolve(dirname(policy), 'cases'));
const built = Buffer.concat([named, ...cases]);

await mkdir(dirname(out), { recursive: true });
await writeFile(out, built);
console.log(`guest: made ${out} (${built.length} bytes)`);

// A custom section with the files of a folder, if it has any.
async function readCases(folder) {
  const files = (await readdir(folder).catch(() => [])).filter((file) => file.endsWith('.json'));
  if (files.length === 0) return [];
  const contents = await Promise.all(files.sort().map((file) => readFile(resolve(folder, file), 'utf8')));
  const name = Buffer.from('rerank:cases');
  const content = Buffer.from(contents.join('\n'));
  const body = Buffer.concat([leb128(name.length), name, content]);
  return [Buffer.of(0), leb128(body.length), body];
}

function leb128(value) {
  const bytes = [];
  for (; value > 0x7f; value >>>= 7) bytes.push((value & 0x7f) | 0x80);
  return Buffer.from([...bytes, value]);
}
