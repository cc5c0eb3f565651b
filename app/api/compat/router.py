"""The endpoints in the formats of other products, as one router."""

from litestar import Router

from app.api.compat.dify import dify_retrieval
from app.api.compat.openai.chat import openai_chat
from app.api.compat.openai.completions import create_completion
from app.api.compat.openai.embeddings import create_embeddings
from app.api.compat.openai.models import list_models, show_model
from app.api.compat.openai.moderations import create_moderations
from app.api.compat.openai.vector_stores import (
    list_vector_store_files,
    list_vector_stores,
    search_vector_store,
    show_vector_store,
    show_vector_store_file,
)
from app.api.compat.openwebui import openwebui_process, openwebui_search
from app.api.compat.ragflow.chat import ragflow_chat
from app.api.compat.ragflow.datasets import ragflow_datasets, ragflow_documents
from app.api.compat.ragflow.retrieval import (
    ragflow_dataset_search,
    ragflow_dify_health,
    ragflow_dify_retrieval,
    ragflow_dify_retrieval_by_get,
    ragflow_retrieval,
)
from app.api.compat.rerank import rerank, score
from app.api.compat.tei import embed_as_tei, rerank_as_tei, tei_health, tei_info

compatibility = Router(
    "/",
    route_handlers=[
        rerank,
        score,
        rerank_as_tei,
        embed_as_tei,
        tei_info,
        tei_health,
        create_embeddings,
        create_moderations,
        create_completion,
        list_models,
        show_model,
        openai_chat,
        search_vector_store,
        list_vector_stores,
        show_vector_store,
        list_vector_store_files,
        show_vector_store_file,
        dify_retrieval,
        ragflow_retrieval,
        ragflow_dataset_search,
        ragflow_dify_retrieval,
        ragflow_dify_retrieval_by_get,
        ragflow_dify_health,
        ragflow_datasets,
        ragflow_documents,
        ragflow_chat,
        openwebui_process,
        openwebui_search,
    ],
    include_in_schema=False,  # they take much more than their own products say, on purpose
)
