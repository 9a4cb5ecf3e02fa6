"""The requests that are timed: `../texts/README.md` says where the texts come from."""

import itertools
import json
import pathlib

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "texts"
FILES = {"titles": ("titles-chorus.json", "title"), "passages": ("passages-scifact.json", "text")}


class Texts:
    """Requests of one kind. Every one has a query that was not sent before."""

    def __init__(self, kind):
        name, field = FILES[kind]
        searches = json.loads((FOLDER / name).read_text(encoding="utf-8"))
        self.queries = [search["query"] for search in searches]
        self.documents = [[one[field] for one in search["documents"]] for search in searches]
        words = sorted({word for text in self.documents[0] for word in text.split() if word.isalpha()})
        self.endings = (" ".join(pair) for pair in itertools.permutations(words, 2))

    def request(self, documents, turn):
        """The same number of documents and turn give the same documents."""
        search = turn % len(self.queries)
        texts = self.documents[search]
        if documents == 1:
            chosen = [texts[turn * 7 % len(texts)]]
        elif documents <= len(texts):
            # Every n-th, so that the lengths are those of the whole.
            step = len(texts) // documents
            chosen = texts[turn % step :: step][:documents]
        else:
            every = [text for texts in self.documents for text in texts]
            chosen = [rotated(every[at % len(every)], at // len(every)) for at in range(documents)]
        return {"query": f"{self.queries[search]} {next(self.endings)}", "documents": chosen}


def rotated(text, times):
    """Another text of the same words: no document is in a request twice."""
    words = text.split(" ")
    start = len(words) * times // 7
    return " ".join(words[start:] + words[:start])
