"""The pages."""

from django.urls import path

from . import views

urlpatterns = [
    path("add", views.add),
    path("count", views.count),
    path("slow", views.slow),
    path("threads", views.threads),
    path("preloaded", views.preloaded),
    path("status", views.status),
]
