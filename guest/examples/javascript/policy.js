// Blends meaning with the first stage, as the bundled policy `semantic-blend` does by default.
// What asks the host for something is here, the arithmetic is in `blend.js`.

import { loadByName } from 'wasi:nn/graph@0.2.0-rc-2024-10-28';
import { encodeTexts } from 'rerank:policy/tokenizer@0.1.0';
import { asSentences, blend, dot } from './blend.js';
import manifest from './manifest.js';
import { reported } from './panics.js';

const MODEL = 'bi-encoder';
const DEFAULTS = Object.fromEntries(
  Object.entries(manifest.parameters.properties).map(([name, schema]) => [name, schema.default]),
);

// What the host calls, on a fresh instance for every request.
export const policy = {
  describe: () => JSON.stringify(manifest),
  rerank: reported(rerank),
};

function rerank(request) {
  // The host has checked them against the manifest's schema.
  const { weight, fields } = { ...DEFAULTS, ...JSON.parse(request.parameters) };
  const texts = request.documents.map((document) => textOf(document, fields));
  const similarities = compare(request.query, texts);
  const cosines = similarities.map(({ cosine }) => cosine);
  const scores =
    request.firstStage === 'none' ? cosines : blend(cosines, firstStage(request), weight);
  return similarities.map((similarity, index) =>
    judge(index, similarity, scores[index], request.explain),
  );
}

/** Embeds the query and all texts in one call: the host sorts and batches them itself. */
function compare(query, texts) {
  const filled = texts.filter((text) => text !== '');
  if (filled.length === 0) return texts.map(() => ({ unscored: 'empty' }));
  const { embeddings, truncated } = embed([query, ...filled]);
  let row = 0;
  return texts.map((text) => {
    if (text === '') return { unscored: 'empty' };
    row += 1;
    // A row that did not run in time is NaN; without the query's own, all documents are late.
    const cosine = dot(embeddings[0], embeddings[row]);
    if (Number.isNaN(cosine)) return { unscored: 'late' };
    // The embeddings have length 1. Rounding may lead out of the range of a cosine.
    return { cosine: Math.max(-1, Math.min(1, cosine)), truncated: truncated.has(row) };
  });
}

/** The embedding of each text, and the rows of which the model saw only the start. */
function embed(texts) {
  try {
    const encoding = encodeTexts(MODEL, texts);
    const truncated = new Set(encoding.truncated());
    const context = loadByName(MODEL).initExecutionContext();
    const outputs = new Map(context.compute(encoding.tensors()));
    const tensor = outputs.get('sentence_embedding');
    const width = tensor.dimensions()[1];
    const values = new Float32Array(tensor.data().slice().buffer);
    const embeddings = texts.map((_, row) => values.subarray(row * width, (row + 1) * width));
    return { embeddings, truncated };
  } catch (error) {
    // What the host refused has a payload: a text from the tokenizer, a resource from wasi:nn.
    if (error.payload === undefined) throw error;
    const { payload } = error;
    const reason = typeof payload === 'string' ? payload : payload.data();
    throw { tag: 'model', val: `model \`${MODEL}\`: ${reason}` };
  }
}

/** What the engine thought of each document, higher is better. */
function firstStage({ firstStage, documents }) {
  const count = documents.length;
  return documents.map(({ score }, at) => (firstStage === 'scored' ? score : (count - at) / count));
}

/** The chosen fields, in their order, as sentences: models were trained on sentences. */
function textOf(document, names) {
  const fields = new Map(document.fields.map(({ name, value }) => [name, value]));
  return asSentences(names.filter((name) => fields.has(name)).map((name) => print(fields.get(name))));
}

function print({ tag, val }) {
  switch (tag) {
    case 'text':
    case 'number':
    case 'integer':
    case 'boolean':
      return String(val);
    case 'texts':
      return val.map((text) => text.trim()).filter((text) => text !== '').join(' ');
    default:
      // Arrays of numbers, vectors and JSON are no text.
      return '';
  }
}

function judge(index, { cosine, truncated, unscored }, score, explain) {
  if (score === undefined) {
    return { index, outcome: { tag: 'unscored', val: unscored }, truncated: false };
  }
  const explanation = explain ? `The cosine is ${cosine.toFixed(4)}.` : undefined;
  return { index, outcome: { tag: 'scored', val: score }, truncated, explanation };
}
