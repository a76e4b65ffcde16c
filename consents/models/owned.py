"""Rows that belong to one organization, and the one filter by which its server and its desk find them."""

from django.db import models


class OwnedQuerySet(models.QuerySet):
    """`owner` is the way from a row to the organization whose it is."""

    owner = "organization"

    def of(self, organization):
        return self.filter(**{self.owner: organization})
