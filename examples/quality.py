"""Do embeddings mean anything? Two checks of MiniLM on real texts.

    python examples/quality.py [MODEL] [DATA]

probe       10,662 sentences of film reviews, praise or blame: a linear classifier on their vectors (ridge regression on
            labels of 1 and -1, in closed form), trained on four fifths and tried on the fifth that it has not seen.
neighbours  paragraphs of the Universal Declaration of Human Rights in twelve languages: whether the nearest of each is
            of its own language. The model has read English only; what it makes of other letters must still agree.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from pellucid import SentenceTransformer, cos_sim

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
FOLDS, RIDGE = 5, 1.0


def probe(model: SentenceTransformer, folder: Path, most: int | None = None) -> float:
    """The share of reviews that a linear classifier gets right, over five folds; of so many of each kind."""
    texts, labels = [], []
    for name, label in (("rt-polarity.pos", 1.0), ("rt-polarity.neg", -1.0)):
        lines = (folder / name).read_text(encoding="latin-1").splitlines()[:most]
        texts += lines
        labels += [label] * len(lines)
    vectors = model.encode(texts, convert_to_tensor=True).double()
    x = torch.cat([vectors, torch.ones(len(texts), 1)], dim=1)
    y = torch.tensor(labels, dtype=torch.float64)
    fold = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)) % FOLDS
    right = 0
    for k in range(FOLDS):
        seen, new = x[fold != k], x[fold == k]
        weight = torch.linalg.solve(seen.T @ seen + RIDGE * torch.eye(x.shape[1]), seen.T @ y[fold != k])
        right += int((torch.sign(new @ weight) == y[fold == k]).sum())
    return right / len(x)


def neighbours(model: SentenceTransformer, folder: Path) -> float:
    """The share of paragraphs whose nearest one is of their own language."""
    texts, languages = [], []
    for path in sorted(folder.glob("*.txt")):
        lines = (line.strip() for line in path.read_text("utf-8").splitlines())
        paragraphs = [line for line in dict.fromkeys(lines) if len(line) > 60]
        texts += paragraphs
        languages += [path.stem] * len(paragraphs)
    vectors = model.encode(texts, windows=True)
    nearest = cos_sim(vectors, vectors).fill_diagonal_(-1).argmax(1).tolist()
    return sum(languages[i] == language for i, language in zip(nearest, languages)) / len(texts)


def main() -> None:
    model = SentenceTransformer(sys.argv[1] if len(sys.argv) > 1 else SHARED / "models" / "minilm")
    data = Path(sys.argv[2]) if len(sys.argv) > 2 else SHARED
    print(f"praise or blame, by a linear classifier: {probe(model, data / 'sentiment'):.4f} right")
    print(f"nearest paragraph is of the same language: {neighbours(model, data / 'text' / 'udhr'):.4f}")


if __name__ == "__main__":
    main()
