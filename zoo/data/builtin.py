"""All datasets of the core. Importing this brings neither numpy nor pyarrow nor Pillow."""

from __future__ import annotations

from zoo.data import Dataset
from zoo.data.hub import Hub, HubImages
from zoo.data.images import Arrays, ImageFolder
from zoo.data.packaged import BbcNews, Digits, HotelReviewsZh, Imdb, Mnist5k, RottenTomatoes
from zoo.data.tables import Table

DATASETS: tuple[type[Dataset], ...] = (
    RottenTomatoes,
    Imdb,
    BbcNews,
    Mnist5k,
    Digits,
    HotelReviewsZh,
    Table,
    ImageFolder,
    Arrays,
    Hub,
    HubImages,
)
