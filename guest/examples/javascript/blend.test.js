import assert from 'node:assert/strict';
import test from 'node:test';

import { asSentences, blend, dot, minMax } from './blend.js';

test('both parts are normalized and weighed', () => {
  const scores = blend([0.2, 0.6, 0.4], [30, 10, 20], 0.75);
  [0.25, 0.75, 0.5].forEach((expected, at) => assert.ok(Math.abs(scores[at] - expected) < 1e-12));
});

test('what was not scored moves no score', () => {
  const two = blend([0.1, 0.3], [2, 1], 0.8);
  const three = blend([0.1, undefined, 0.3], [2, 1e6, 1], 0.8);
  assert.deepEqual(three, [two[0], undefined, two[1]]);
});

test('one document and ties have a score', () => {
  assert.deepEqual(minMax([0.7]), [0.5]);
  assert.deepEqual(minMax([3, undefined, 3]), [0.5, undefined, 0.5]);
  assert.deepEqual(minMax([undefined]), [undefined]);
});

test('the largest numbers do not overflow', () => {
  assert.deepEqual(minMax([-1.7e308, 0, 1.7e308]), [0, 0.5, 1]);
});

test('parts become sentences', () => {
  assert.equal(asSentences([' A lamp ', '', 'Really?', 'Yes']), 'A lamp. Really? Yes');
});

test('a dot product is a sum of products', () => assert.equal(dot([1, 2], [3, 4]), 11));
