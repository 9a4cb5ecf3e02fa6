export default {
  "manifest_version": 1,
  "name": "semantic-blend-javascript",
  "version": "0.1.0",
  "description": "Blends the cosine of query and document embeddings with the first stage, in JavaScript.",
  "score_kind": "blend",
  "score_kind_if": [{ "first_stage": "none", "then": "cosine" }],
  "set_relative": ["scored", "ranked"],
  "fields": ["title", "text"],
  "models": [{ "name": "bi-encoder", "kind": "bi-encoder", "default": "all-minilm-l6-v2" }],
  "filters": false,
  "parameters": {
    "type": "object",
    "properties": {
      "weight": {
        "description": "How much meaning counts: 1 is the cosine alone, 0 the first stage alone. Without effect if there is no first stage.",
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": 0.8
      },
      "fields": {
        "description": "The document fields that are embedded, in this order, joined as sentences.",
        "type": "array",
        "items": { "type": "string", "minLength": 1 },
        "minItems": 1,
        "maxItems": 32,
        "uniqueItems": true,
        "default": ["title", "text"]
      }
    },
    "additionalProperties": false
  }
};
