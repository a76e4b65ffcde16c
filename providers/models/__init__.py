"""Facts about organizations and the wires to them. Nothing here knows a person."""

from .catalogue import Scope, Service, Terms, TermsItem
from .channels import Channel, ChannelKey
from .clients import ApiClient, ClientSecret, KeySet
from .directory import DirectoryEntry
from .organizations import Licence, Organization
from .policy import PolicyRule

__all__ = [
    "ApiClient",
    "Channel",
    "ChannelKey",
    "ClientSecret",
    "DirectoryEntry",
    "KeySet",
    "Licence",
    "Organization",
    "PolicyRule",
    "Scope",
    "Service",
    "Terms",
    "TermsItem",
]
