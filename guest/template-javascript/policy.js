// Moves documents up whose title has the words of the query.

import manifest from './manifest.js';
import { reported } from './panics.js';

// How far a title with all words of the query moves a document up; 1.0 is all the way from the engine's
// last score to its first.
const TITLE_BOOST = 0.3; // <- the line to edit

// What the host calls, on a fresh instance for every request.
export const policy = {
  describe: () => JSON.stringify(manifest),
  rerank: reported(rerank),
};

function rerank(request) {
  const wanted = words(request.query);
  const base = firstStage(request);
  return request.documents.map((document, index) => {
    const score = base[index] + TITLE_BOOST * shareInTitle(wanted, document);
    return { index, outcome: { tag: 'scored', val: score }, truncated: false };
  });
}

/** What the engine thought of each document, from 0.0 to 1.0; 0.0 where nobody knows. */
function firstStage({ firstStage, documents }) {
  if (firstStage === 'none') return documents.map(() => 0);
  const values = documents.map(({ score }, position) =>
    firstStage === 'scored' ? score : documents.length - position,
  );
  // Halves, as the difference of two finite numbers may overflow.
  const [smallest, largest] = [Math.min(...values) / 2, Math.max(...values) / 2];
  if (smallest === largest) return values.map(() => 0.5);
  return values.map((value) => (value / 2 - smallest) / (largest - smallest));
}

/** How many of the query's words the title has: from 0.0, none, to 1.0, all. */
function shareInTitle(wanted, { fields }) {
  const titles = fields.filter(({ name, value }) => name === 'title' && value.tag === 'text');
  const there = new Set(titles.flatMap(({ value }) => words(value.val)));
  return wanted.filter((word) => there.has(word)).length / Math.max(wanted.length, 1);
}

// By spaces and ASCII's punctuation: the engine in the component has no Unicode classes for patterns.
function words(text) {
  const words = text.toLowerCase().split(/[\s!-/:-@[-`{-~]+/);
  return words.filter((word) => word !== '');
}
