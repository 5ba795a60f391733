"""What signed URLs name without their signatures, and when they expire."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from backend.labelstudio import label_config
from backend.signed_urls import expiry, unsigned
from backend.types import Task
from tests.support import CONFIG

END = datetime(2026, 11, 2, 12, tzinfo=UTC)
SIGNED = {
    "S3": "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK%2F20261101%2Feu&X-Amz-Date=20261101T120000Z"
    "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Security-Token=to%2Fken&X-Amz-Signature={}",
    "Google": "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=me%40project&X-Goog-Date=20261101T120000Z"
    "&X-Goog-Expires=86400&X-Goog-SignedHeaders=host&X-Goog-Signature={}",
    "Azure": "sp=r&st=2026-11-01T12:00:00Z&se=2026-11-02T12:00:00Z&spr=https&sv=2024-11-04&sr=b&sig={}%3D",
    "version 2": f"AWSAccessKeyId=AK&Signature={{}}%2B&Expires={int(END.timestamp())}",
}


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
def test_a_url_that_is_signed_again_names_the_same(query: str) -> None:
    base = "https://bucket.example/a%20b.jpg"
    assert unsigned(f"{base}?{query.format('first')}") == unsigned(f"{base}?{query.format('second')}") == base
    assert unsigned(f"{base}?versionId=4&{query.format('first')}&x=a%26b#part") == f"{base}?versionId=4&x=a%26b"
    assert expiry(f"{base}?{query.format('first')}") == END


@pytest.mark.parametrize(
    "url",
    [
        "https://host.example/a.jpg",
        "https://host.example/a.jpg?se=2026-11-02T12:00:00Z&sp=r",  # without a signature
        "https://host.example/a.jpg?sig=1&se=south",
        "https://host.example/a.jpg?Signature=1&Expires=99999999999999999999",
        "https://host.example/a.jpg?X-Amz-Signature=1&X-Amz-Date=20261101T120000Z&X-Amz-Expires=soon",
        f"s3://bucket/a.jpg?{SIGNED['S3']}",
        f"/data/upload/1/a.jpg?{SIGNED['S3']}",
        "",
    ],
)
def test_other_texts_stay_as_they_are(url: str) -> None:
    assert unsigned(url) == url
    assert expiry(url) is None


def test_a_prediction_stays_valid_when_the_url_of_its_image_is_renewed() -> None:
    (tag,) = label_config.parse(CONFIG)

    def source(path: str, signature: str) -> int:
        return tag.source(Task(1, {"image": f"https://b.example/{path}?{SIGNED['S3'].format(signature)}"}))

    assert source("a.jpg", "first") == source("a.jpg", "second") != source("b.jpg", "first")


def test_an_end_in_another_zone() -> None:
    assert expiry("https://b.example/a?sig=1&se=2026-11-02T14:00:00%2B02:00") == END
