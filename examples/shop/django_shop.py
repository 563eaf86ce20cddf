"""The shop in Django, in one file.

gunicorn --preload --workers 2 --threads 8 django_shop:application
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator

import payments
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection, models, transaction
from django.db.models import F
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.urls import path
from django.views.decorators.http import require_POST
from psycopg.conninfo import conninfo_to_dict

address = conninfo_to_dict(os.environ["DATABASE_URL"])
settings.configure(
    SECRET_KEY="not for production",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "edgepool.django",
            "NAME": address["dbname"],
            "USER": address["user"],
            "HOST": address["host"],
            "PORT": address["port"],
            "OPTIONS": {
                "pool": {
                    "min_size": 1,
                    "max_size": int(os.environ.get("EDGEPOOL_MAX_SIZE", "4")),
                }
            },
        }
    },
)
application = get_wsgi_application()


class Product(models.Model):
    """What is for sale."""

    name = models.TextField()
    price = models.DecimalField(max_digits=10, decimal_places=2)
    stock = models.IntegerField()

    class Meta:
        app_label, db_table, managed = "shop", "products", False


class Order(models.Model):
    """What somebody has ordered."""

    product = models.ForeignKey(Product, models.PROTECT)
    quantity = models.IntegerField()
    total = models.DecimalField(max_digits=10, decimal_places=2)
    state = models.TextField(default="reserved")
    receipt = models.TextField(null=True)

    class Meta:
        app_label, db_table, managed = "shop", "orders", False


def products(request: HttpRequest) -> HttpResponse:
    """Show what there is."""
    rows = Product.objects.order_by("id").values("id", "name", "price", "stock")
    return JsonResponse(
        [row | {"price": float(row["price"])} for row in rows], safe=False
    )


@require_POST
def order(request: HttpRequest) -> HttpResponse:
    """Reserve, have it paid, and say so; no connection is held while it is paid."""
    wanted = json.loads(request.body)
    quantity = wanted["quantity"]
    with transaction.atomic():
        wanted_product = Product.objects.filter(
            id=wanted["product"], stock__gte=quantity
        )
        if not wanted_product.update(stock=F("stock") - quantity):
            return HttpResponse("sold out", status=409)
        product = Product.objects.get(id=wanted["product"])
        made = Order.objects.create(
            product=product, quantity=quantity, total=product.price * quantity
        )
    connection.close()  # to the pool
    receipt = payments.pay(made.id, made.total)
    Order.objects.filter(id=made.id).update(state="paid", receipt=receipt)
    return JsonResponse({"id": made.id, "receipt": receipt}, status=201)


def one_order(request: HttpRequest, number: int) -> HttpResponse:
    """Show an order."""
    found = get_object_or_404(Order, id=number)
    return JsonResponse(
        {
            "id": found.id,
            "product": found.product_id,
            "quantity": found.quantity,
            "total": float(found.total),
            "state": found.state,
            "receipt": found.receipt,
        }
    )


def export(request: HttpRequest) -> StreamingHttpResponse:
    """Send all orders, however many, while they come from the database."""

    def lines() -> Iterator[str]:
        columns = ("id", "product_id", "quantity", "total", "state")
        for row in Order.objects.order_by("id").values_list(*columns).iterator():
            line = io.StringIO()
            csv.writer(line).writerow(row)
            yield line.getvalue()
        connection.close()

    return StreamingHttpResponse(lines(), content_type="text/csv")


urlpatterns = [
    path("products", products),
    path("orders", order),
    path("orders/<int:number>", one_order),
    path("orders.csv", export),
]
