"""The endpoints in the formats of other products, as one router."""

from litestar import Router

from app.api.compat.dify import dify_retrieval
from app.api.compat.openai.chat import openai_chat
from app.api.compat.openai.completions import create_completion
from app.api.compat.openai.embeddings import create_embeddings
from app.api.compat.openai.models import list_models, show_model
from app.api.compat.openai.moderations import create_moderations
from app.api.compat.openwebui import openwebui_process, openwebui_search
from app.api.compat.ragflow.chat import ragflow_chat
from app.api.compat.ragflow.datasets import ragflow_datasets, ragflow_documents
from app.api.compat.ragflow.retrieval import (
    ragflow_dify_health,
    ragflow_dify_retrieval,
    ragflow_dify_retrieval_by_get,
    ragflow_retrieval,
)
from app.api.compat.rerank import rerank, rerank_as_tei

compatibility = Router(
    "/",
    route_handlers=[
        rerank,
        rerank_as_tei,
        create_embeddings,
        create_moderations,
        create_completion,
        list_models,
        show_model,
        openai_chat,
        dify_retrieval,
        ragflow_retrieval,
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
