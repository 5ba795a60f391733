"""What signed URLs name without their signatures, and when they expire."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest

from backend.urls.signed_urls import expires, expiry, unsigned

END = datetime(2026, 11, 2, 12, tzinfo=UTC)


def policy(text: str) -> str:
    """Return a custom policy as CloudFront writes it into a query."""
    return base64.b64encode(text.encode()).decode().translate(str.maketrans("+=/", "-_~"))


UNTIL = (
    '{{"Statement":[{{"Resource":"https://d1.cloudfront.net/*?~>>","Condition":{{"DateGreaterThan":{{"AWS:EpochTime":1}},'
    '"DateLessThan":{{"AWS:EpochTime":{}}}}}}}]}}'
)
SIGNED = {
    "S3": "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK%2F20261101%2Feu&X-Amz-Date=20261101T120000Z"
    "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Security-Token=to%2Fken&X-Amz-Signature={}",
    "Google": "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=me%40project&X-Goog-Date=20261101T120000Z"
    "&X-Goog-Expires=86400&X-Goog-SignedHeaders=host&X-Goog-Signature={}",
    "Azure": "sp=r&st=2026-11-01T12:00:00Z&se=2026-11-02T12:00:00Z&spr=https&sv=2024-11-04&sr=b&sig={}%3D",
    "CloudFront": f"Policy={policy(UNTIL.format(int(END.timestamp())))}&Signature={{}}_&Key-Pair-Id=K2",
    "version 2": f"AWSAccessKeyId=AK&Signature={{}}%2B&Expires={int(END.timestamp())}",
}


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
def test_a_url_that_is_signed_again_names_the_same(query: str) -> None:
    base = "https://bucket.example/a%20b.jpg"
    assert unsigned(f"{base}?{query.format('first')}") == unsigned(f"{base}?{query.format('second')}") == base
    assert unsigned(f"{base}?versionId=4&{query.format('first')}&x=a%26b#part") == f"{base}?versionId=4&x=a%26b"
    assert expiry(f"{base}?{query.format('first')}") == END
    assert expires(f"{base}?{query.format('first')}")


@pytest.mark.parametrize(
    "url",
    [
        "https://host.example/a.jpg",
        "https://host.example/a.jpg?se=2026-11-02T12:00:00Z&sp=r",  # without a signature
        "https://host.example/a.jpg?sig=1&se=south",
        "https://host.example/a.jpg?sig=1&si=south",  # no shared access signature is without its version
        "https://host.example/a.jpg?Signature=1&Expires=99999999999999999999",
        f"https://host.example/a.jpg?Signature=1&Policy={policy(UNTIL.format(1))}",  # without a key
        *(
            f"https://host.example/a.jpg?Signature=1&Key-Pair-Id=K2&Policy={text}"
            for text in (
                "not+base64",
                policy("no json"),
                policy("[]"),
                policy('{"Statement":{}}'),
                policy('{"Statement":[7]}'),
                policy('{"Statement":[{"Condition":{"DateLessThan":{}}}]}'),
                policy(UNTIL.format("null")),
                policy(UNTIL.format("[]")),
                policy(UNTIL.format("Infinity")),
                policy(UNTIL.format("1e40")),
                policy("[" * 100_000),
            )
        ),
        "https://host.example/a.jpg?X-Amz-Signature=1&X-Amz-Date=20261101T120000Z&X-Amz-Expires=soon",
        f"s3://bucket/a.jpg?{SIGNED['S3']}",
        f"/data/upload/1/a.jpg?{SIGNED['S3']}",
        "",
    ],
)
def test_other_texts_stay_as_they_are(url: str) -> None:
    assert unsigned(url) == url
    assert expiry(url) is None
    assert not expires(url)


def test_a_url_whose_end_stands_in_a_policy_of_the_container_expires_some_time() -> None:
    """The stored access policy of Azure has the end, so the URL names only the policy."""
    url = "https://account.example/box/a.jpg?sv=2024-11-04&sr=b&si=readers&sig={}%3D&v=2"
    assert unsigned(url.format("first")) == unsigned(url.format("second")) == "https://account.example/box/a.jpg?v=2"
    assert expires(url.format("first"))
    assert expiry(url.format("first")) is None


def test_an_end_in_another_zone() -> None:
    assert expiry("https://b.example/a?sig=1&se=2026-11-02T14:00:00%2B02:00") == END
