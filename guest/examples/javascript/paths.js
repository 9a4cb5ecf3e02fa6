// Takes the paths of the machine that made a component out of it: no business of whoever gets the component.
// Node's own; no part of a policy.

const STAND_IN = '/policy';

// The component with others of the same length in their place, so that no byte changes its position.
// `folder`: the policy's own; `temporary`: where componentize-js keeps its copies.
export function withoutPaths(component, folder, temporary) {
  // What the engine is told it splits at spaces.
  const folders = [folder, folder.split(' ')[0]];
  const named = [...folders.flatMap(own), `${literal(temporary)}/[0-9a-f]+/sources`].reduce(
    (text, path) => text.replace(new RegExp(path, 'g'), standIn),
    Buffer.from(component).toString('latin1'),
  );
  return Buffer.from(named, 'latin1');
}

// `/app` names nobody, and a policy may have the word in a text of its own; nor is it the start of `/home/me/a` in
// `/home/me/apples`.
function own(folder) {
  return folder.length < STAND_IN.length ? [] : [`${literal(folder)}(?![\\w.-])`];
}

// A regular expression for a path as it stands in a component's bytes.
function literal(path) {
  return Buffer.from(path)
    .toString('latin1')
    .replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
}

function standIn(found) {
  return STAND_IN.padEnd(found.length, '/').slice(0, found.length);
}
