"""Every address under /mydata/: the Korean support API."""

from django.urls import path, re_path

from consents.api import mydata, statistics

urlpatterns = [
    path("mgmts/oauth/2.0/token", mydata.Token.as_view()),
    path("v2/mgmts/orgs", mydata.Organizations.as_view()),
    path("v2/mgmts/services", mydata.Services.as_view()),
    path("v2/mgmts/statistics/mydata", statistics.OfOperators.as_view()),
    path("v2/mgmts/statistics/provider", statistics.OfSources.as_view()),
    re_path(r"", mydata.Nowhere.as_view()),
]
