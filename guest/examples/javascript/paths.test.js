import assert from 'node:assert/strict';
import test from 'node:test';

import { withoutPaths } from './paths.js';

const cleared = (text, folder, temporary = '/tmp') =>
  withoutPaths(Buffer.from(text), folder, temporary).toString();

test('paths make room for others of the same length', () => {
  const text = '\0/home/me/tea/policy.js\0/tmp/0a1b/sources/initializer.js\0';
  const expected = '\0/policy//////policy.js\0/policy///////////initializer.js\0';
  assert.equal(cleared(text, '/home/me/tea').length, text.length);
  assert.equal(cleared(text, '/home/me/tea'), expected);
});

test('a path may have any character', () => {
  for (const folder of ['/home/me/c++/x', '/home/me/(a)[b]{c}', '/home/me/$1 ^a|b?*.', '/home/jürgen/茶', '/a\\b/c-d/e']) {
    const bytes = Buffer.byteLength(folder);
    const stands = '/policy'.padEnd(bytes, '/');
    assert.equal(cleared(`a ${folder}/policy.js ${folder}\0b`, folder), `a ${stands}/policy.js ${stands}\0b`);
    const found = cleared(`${folder}/09af/sources/x`, '/somewhere/else', folder);
    assert.equal(found, `${'/policy'.padEnd(bytes + '/09af/sources'.length, '/')}/x`);
  }
});

test('of a path with spaces the first part goes, too', () => {
  const found = cleared('/home/me and/tea/policy.js /home/me\0', '/home/me and/tea');
  assert.equal(found, '/policy//////////policy.js /policy/\0');
});

test('a point is a point', () => assert.equal(cleared('/home/me/axb', '/home/me/a.b'), '/home/me/axb'));

test('a short path names nobody, and moves nothing', () => {
  for (const folder of ['/', '/app', '/src']) {
    const text = `${folder}/policy.js /app/tea /apples ${folder}`;
    assert.equal(cleared(text, folder), text);
  }
  const short = cleared('/t/a/sources/x', '/home/me/tea', '/t');
  assert.equal(short, '/policy///////x'.slice(0, '/t/a/sources'.length) + '/x');
});

test('what only begins like the path stays', () => {
  assert.equal(cleared('/home/me/apples /home/me/a', '/home/me/a'), '/home/me/apples /policy///');
});

test('bytes that are no text stay', () => {
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  assert.deepEqual(withoutPaths(bytes, '/home/me/tea', '/tmp'), bytes);
});
