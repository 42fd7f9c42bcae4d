"""Writes a folder of pictures, one subfolder for each class; yours stands in its place."""

import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

count = int(sys.argv[1]) if len(sys.argv) > 1 else 600
digits = load_digits()
for number, (pixels, label) in enumerate(zip(digits.images[:count], digits.target, strict=False)):
    folder = Path("photos") / f"digit-{label}"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * 15.9).astype("uint8")).resize((24, 24)).save(folder / f"{number:04}.png")
