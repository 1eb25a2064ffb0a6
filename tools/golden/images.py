"""Writes the picture fixtures of crates/models/tests/data/images with Pillow and OpenCV.

    pip install pillow opencv-python-headless numpy && python tools/golden/images.py crates/models/tests/data/images

One small picture in every container and pixel kind that is read, and what Pillow makes of it; the same picture resized
by Pillow and by OpenCV, prepared as torchvision does, and cut out in perspective by OpenCV. `golden.bin` holds the
expected bytes one after another, `golden.json` says which are whose.
"""

import io
import json
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

FILTERS = {
    "nearest": (Image.Resampling.NEAREST, cv2.INTER_NEAREST),
    "bilinear": (Image.Resampling.BILINEAR, cv2.INTER_LINEAR),
    "bicubic": (Image.Resampling.BICUBIC, cv2.INTER_CUBIC),
}
QUAD = np.array([[6, 3], [30, 7], [28, 22], [4, 18]], np.float32)


def picture(width, height):
    """Smooth colours, an edge, and some texture."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red = 255 * x / (width - 1)
    green = 127 + 100 * np.sin(x / 5) * np.cos(y / 4)
    blue = np.where(x + y > (width + height) / 2, 220, 30) + 10 * np.sin(x * y)
    return np.clip(np.stack([red, green, blue], -1), 0, 255).astype(np.uint8)


class Golden:
    def __init__(self, out):
        self.out, self.bytes, self.rows = out, b"", []

    def expect(self, name, array, **more):
        array = np.ascontiguousarray(array)
        self.rows.append({"name": name, "shape": array.shape, "at": len(self.bytes), "len": array.nbytes, **more})
        self.bytes += array.tobytes()

    def file(self, name, image, **options):
        """Saves a file, and expects what Pillow reads from it, over white, upright."""
        path = self.out / name
        image.save(path, **options)
        with Image.open(path) as read:
            read.seek(0)
            read = read.copy() if "rotated" not in name else read.transpose(Image.Transpose.ROTATE_270)
        if read.mode.startswith("I;16"):
            read = Image.fromarray(np.round(np.asarray(read) / 257).astype(np.uint8))
        if "A" in read.mode or "transparency" in read.info:
            paper = Image.new("RGBA", read.size, "white")
            read = Image.alpha_composite(paper, read.convert("RGBA"))
        self.expect(name, np.asarray(read.convert("RGB")), kind="decode")

    def save(self):
        (self.out / "golden.bin").write_bytes(self.bytes)
        (self.out / "golden.json").write_text(json.dumps(self.rows, indent=1) + "\n")


def decoding(golden, rgb):
    image = Image.fromarray(rgb)
    alpha = np.concatenate([rgb, np.full(rgb.shape[:2] + (1,), 255, np.uint8)], -1)
    alpha[:, ::3, 3], alpha[::4, :, 3] = 0, 100
    exif = Image.Exif()
    exif[274] = 6
    golden.file("rgb.png", image)
    golden.file("palette.png", image.quantize(32))
    golden.file("grey.png", image.convert("L"))
    golden.file("alpha.png", Image.fromarray(alpha))
    golden.file("grey-alpha.png", Image.fromarray(alpha).convert("LA"))
    golden.file("grey16.png", Image.fromarray((rgb[..., 1].astype(np.uint16) * 257 + 40)))
    golden.file("bit.png", image.convert("1"))
    golden.file("rgb.jpg", image, quality=90)
    golden.file("grey.jpg", image.convert("L"), quality=90)
    golden.file("cmyk.jpg", image.convert("CMYK"), quality=95)
    golden.file("progressive.jpg", image, quality=90, progressive=True)
    golden.file("rotated.jpg", image, quality=90, exif=exif)
    golden.file("rgb.webp", image, lossless=True)
    golden.file("alpha.webp", Image.fromarray(alpha), lossless=True, exact=True)
    golden.file("lossy.webp", image, quality=90)
    golden.file("rgb.bmp", image)
    frames = [image.quantize(32), image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).quantize(32)]
    golden.file("animated.gif", frames[0], save_all=True, append_images=frames[1:])


def resizing(golden, rgb):
    for name, (pillow, opencv) in FILTERS.items():
        for width, height in [(13, 11), (50, 40), (37, 12)]:
            size = {"width": width, "height": height, "kind": "resize", "filter": name}
            resized = Image.fromarray(rgb).resize((width, height), pillow)
            golden.expect(f"pillow {name} {width}x{height}", np.asarray(resized), by="pillow", **size)
            resized = cv2.resize(rgb, (width, height), interpolation=opencv)
            golden.expect(f"opencv {name} {width}x{height}", resized, by="opencv", **size)


def preparing(golden, rgb):
    """torchvision's Resize(20), CenterCrop(16), ToTensor, Normalize; Caffe's BGR minus means, stretched."""
    height, width = rgb.shape[:2]
    short = Image.fromarray(rgb).resize((int(20 * width / height), 20), Image.Resampling.BILINEAR)
    left, top = int(round((short.width - 16) / 2)), int(round((20 - 16) / 2))
    cut = np.asarray(short, np.float32)[top : top + 16, left : left + 16] / 255
    cut = (cut - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    golden.expect("torchvision", cut.transpose(2, 0, 1)[None].astype(np.float32), kind="prepare")
    stretched = np.asarray(Image.fromarray(rgb).resize((16, 16), Image.Resampling.BILINEAR), np.float32)
    caffe = stretched[..., ::-1] - np.float32([104, 117, 123])
    golden.expect("caffe", caffe.transpose(2, 0, 1)[None].astype(np.float32), kind="prepare")
    grey = np.asarray(Image.fromarray(rgb).convert("L"), np.float32) / 255
    golden.expect("grey", grey[None, None], kind="prepare")


def warping(golden, rgb):
    width = int(max(np.linalg.norm(QUAD[0] - QUAD[1]), np.linalg.norm(QUAD[2] - QUAD[3])))
    height = int(max(np.linalg.norm(QUAD[0] - QUAD[3]), np.linalg.norm(QUAD[1] - QUAD[2])))
    target = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    matrix = cv2.getPerspectiveTransform(QUAD, target)
    cut = cv2.warpPerspective(rgb, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    golden.expect("straighten", cut, kind="warp", quad=QUAD.tolist())


def bad(out, rgb):
    """Files that must be refused: a header that asks for 65,500 x 65,500 pixels, and half a file."""
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "PNG")
    whole = stream.getvalue()
    import zlib

    header = b"IHDR" + (65500).to_bytes(4, "big") * 2 + whole[24:29]
    bomb = whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:]
    (out / "bomb.png").write_bytes(bomb)
    (out / "half.png").write_bytes(whole[: len(whole) // 2])


def main():
    out = Path(sys.argv[1])
    golden, rgb = Golden(out), picture(37, 29)
    decoding(golden, rgb)
    resizing(golden, rgb)
    preparing(golden, rgb)
    warping(golden, rgb)
    bad(out, rgb)
    golden.save()


main()
