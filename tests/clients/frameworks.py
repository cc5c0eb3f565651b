"""`python frameworks.py NAME URL`: a framework's own reranker, in its environment, ranks DOCUMENTS.

It writes JSON: the pairs [index, score] in the order in which the framework gives them. Runs without our packages.
"""

import json
import sys

QUERY = "When does dental cover start?"
DOCUMENTS = [
    "Parking is free for staff behind the office.",
    "Dental cover starts on the first day of work.",
    "The office opens at nine and closes at six.",
]
KEY = "any-key"

Places = list[tuple[int, float]]


def langchain_cohere(url: str) -> Places:
    from langchain_cohere import CohereRerank

    reranker = CohereRerank(model="winnow-rerank", cohere_api_key=KEY, base_url=url, top_n=2)
    return _places(reranker.rerank(DOCUMENTS, QUERY))


def langchain_jina(url: str) -> Places:
    from langchain_community.document_compressors import jina_rerank

    jina_rerank.JINA_API_URL = f"{url}/v1/rerank"
    reranker = jina_rerank.JinaRerank(model="winnow-rerank", jina_api_key=KEY, top_n=2)
    return _places(reranker.rerank(DOCUMENTS, QUERY))


def llamaindex_cohere(url: str) -> Places:
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    return _llamaindex(CohereRerank(model="winnow-rerank", api_key=KEY, base_url=url, top_n=2))


def llamaindex_jina(url: str) -> Places:
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    return _llamaindex(JinaRerank(model="winnow-rerank", api_key=KEY, base_url=f"{url}/v1", top_n=2))


def haystack_cohere(url: str) -> Places:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.cohere import CohereRanker

    return _haystack(CohereRanker(model="winnow-rerank", api_key=Secret.from_token(KEY), api_base_url=url, top_k=2))


def haystack_jina(url: str) -> Places:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.jina import JinaRanker

    key = Secret.from_token(KEY)
    return _haystack(JinaRanker(model="winnow-rerank", api_key=key, base_url=f"{url}/v1/rerank", top_k=2))


def _places(found) -> Places:  # type: ignore[no-untyped-def]
    return [(one["index"], one["relevance_score"]) for one in found]


def _llamaindex(reranker) -> Places:  # type: ignore[no-untyped-def]
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(index))) for index, text in enumerate(DOCUMENTS)]
    found = reranker.postprocess_nodes(nodes, query_bundle=QueryBundle(QUERY))
    return [(int(node.node_id), node.score) for node in found]


def _haystack(ranker) -> Places:  # type: ignore[no-untyped-def]
    from haystack import Document

    documents = [Document(id=str(index), content=text) for index, text in enumerate(DOCUMENTS)]
    found = ranker.run(query=QUERY, documents=documents)["documents"]
    return [(int(document.id), document.score) for document in found]


CLIENTS = {
    client.__name__: client
    for client in (
        langchain_cohere,
        langchain_jina,
        llamaindex_cohere,
        llamaindex_jina,
        haystack_cohere,
        haystack_jina,
    )
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(CLIENTS[sys.argv[1]](sys.argv[2])))
