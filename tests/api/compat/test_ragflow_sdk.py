"""RAGFlow's own client against the running service."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.running import RunningServer

RAGFlow = pytest.importorskip("ragflow_sdk", reason="ragflow-sdk does not install on Python 3.13").RAGFlow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    running = RunningServer(tmp_path_factory.mktemp("home"))
    documents = [{"id": "one", "text": "Cats sleep all day.", "source": "cats.md", "metadata": {"kind": "pet"}}]
    sent = httpx.post(f"{running.url}/documents", json={"collection": "pets", "documents": documents}, timeout=60)
    assert sent.json()["created"] == 1
    yield running.url
    running.close()


@pytest.fixture
def ragflow(url: str) -> Any:
    return RAGFlow(api_key="ragflow-anything", base_url=url)


def test_it_retrieves(ragflow: Any) -> None:
    """Chunks come back as the client's own objects, by similarity."""
    chunks = ragflow.retrieve(dataset_ids=["default"], question="When does dental cover start?")
    assert chunks[0].content == "Dental cover starts on the first day of work."
    assert (chunks[0].document_id, chunks[0].document_name, chunks[0].dataset_id) == ("dental", "dental.txt", "default")
    assert 0.2 <= chunks[0].similarity <= 1
    assert chunks[0].positions == []


def test_from_names_to_passages(ragflow: Any) -> None:
    """The usual way: the dataset by name, its document by keyword, then a search in that document."""
    dataset = ragflow.get_dataset(name="pets")
    [document] = dataset.list_documents(keywords="cats")
    assert (document.name, document.chunk_count, document.run) == ("cats.md", 1, "DONE")
    condition = {"logic": "and", "conditions": [{"name": "kind", "comparison_operator": "is", "value": "PET"}]}
    [chunk] = ragflow.retrieve(
        dataset_ids=[dataset.id],
        document_ids=[document.id],
        question="Do cats sleep?",
        metadata_condition=condition,
        similarity_threshold=0.0,
    )
    assert chunk.content == "Cats sleep all day."


def test_it_lists_datasets(ragflow: Any) -> None:
    """Every collection, page by page."""
    assert [dataset.name for dataset in ragflow.list_datasets()] == ["default", "pets"]
    assert [dataset.id for dataset in ragflow.list_datasets(page=2, page_size=1)] == ["pets"]


def test_it_raises_what_we_say(ragflow: Any) -> None:
    """Errors reach the caller with our sentence."""
    with pytest.raises(Exception, match="collection 'nope' not found"):
        ragflow.retrieve(dataset_ids=["nope"], question="x")
    with pytest.raises(Exception, match="dataset 'nope' not found"):
        ragflow.get_dataset(name="nope")
    with pytest.raises(Exception, match="`dataset_ids` is required"):
        ragflow.retrieve(dataset_ids=[], question="x")


def test_it_says_what_is_not_served(ragflow: Any) -> None:
    """Our sentence, not a KeyError of its own."""
    dataset = ragflow.get_dataset(name="pets")
    [document] = dataset.list_documents()
    for unserved in (document.list_chunks, ragflow.list_chats, lambda: ragflow.create_dataset("x")):
        with pytest.raises(Exception, match="does not serve this part"):
            unserved()
