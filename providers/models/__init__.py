"""Facts about organizations and the wires to them. Nothing here knows a person."""

from .catalogue import Scope, Service, Terms, TermsItem
from .channels import ApiClient, Channel, ChannelKey
from .organizations import Licence, Organization
from .policy import PolicyRule

__all__ = [
    "ApiClient",
    "Channel",
    "ChannelKey",
    "Licence",
    "Organization",
    "PolicyRule",
    "Scope",
    "Service",
    "Terms",
    "TermsItem",
]
