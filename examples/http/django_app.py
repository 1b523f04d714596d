"""Django, as an ASGI application: `uvicorn examples.http.django_app:app`.

Django passes on neither streams that live long nor the server's start and end, so the handler stands beside
it: requests below `/api/durably` go to the handler, all others to Django.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from examples.http.jobs import durably
from starlette.applications import Starlette
from starlette.routing import Mount

from durably import ValidationError, create_durably_handler

settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__, SECRET_KEY="only for this example")
django.setup()


async def start_import(request: HttpRequest) -> JsonResponse:
    try:
        run = await durably.jobs.import_csv.trigger(json.loads(request.body))
    except (UnicodeDecodeError, json.JSONDecodeError, ValidationError) as error:
        return JsonResponse({"error": str(error)}, status=400)
    return JsonResponse({"run_id": run.id}, status=202)


urlpatterns = [path("imports", start_import)]


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    async with durably:
        yield


app = Starlette(
    routes=[Mount("/api/durably", create_durably_handler(durably)), Mount("/", get_asgi_application())],
    lifespan=lifespan,
)
