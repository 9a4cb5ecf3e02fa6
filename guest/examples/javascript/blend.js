// The arithmetic of the policy: nothing here knows the host, so that tests need none.

/**
 * `weight` times the cosine and the rest of 1 times the first stage, both from 0 to 1. A document
 * without a cosine (`undefined`) stays without a score, and moves no other's.
 */
export function blend(cosines, firstStage, weight) {
  const near = minMax(cosines);
  const engine = minMax(firstStage.map((value, at) => (cosines[at] === undefined ? undefined : value)));
  return near.map((cosine, at) =>
    cosine === undefined ? undefined : weight * cosine + (1 - weight) * engine[at],
  );
}

/** From 0 for the smallest to 1 for the largest; 0.5 if there is no difference. */
export function minMax(values) {
  const known = values.filter((value) => value !== undefined);
  // Halves, as the difference of two finite numbers may overflow.
  const smallest = Math.min(...known) / 2;
  const width = Math.max(...known) / 2 - smallest;
  return values.map((value) => {
    if (value === undefined) return undefined;
    return width === 0 ? 0.5 : (value / 2 - smallest) / width;
  });
}

/** The parts joined; each but the last ends in `.`, unless it ends in punctuation. */
export function asSentences(parts) {
  const filled = parts.map((part) => part.trim()).filter((part) => part !== '');
  return filled
    .map((part, at) => (at === filled.length - 1 || /[.!?:;,。！？]$/u.test(part) ? part : `${part}.`))
    .join(' ');
}

/** Of two vectors of the same length; of embeddings of length 1 it is their cosine. */
export function dot(one, other) {
  let sum = 0;
  for (let at = 0; at < one.length; at++) sum += one[at] * other[at];
  return sum;
}
