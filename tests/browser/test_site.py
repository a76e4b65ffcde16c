"""The list of pages that are looked at is whole."""

from django.urls import Resolver404, get_resolver, resolve

from tests.browser.test_pages import PAGES

# Answers without a page of their own: they redirect, download, or stand inside another page.
WITHOUT_A_PAGE = {
    "set_language", "start", "decline_request", "return_request", "erase", "pause", "resume", "erase_consent", "answer_notice", "confirm_delivery",
    "healthz", "readyz", "log_checkpoint", "log_tile", "entry_proof", "entry_receipt", "desk_proof", "desk_receipt",
    "oversight_proof", "check_integrity", "acknowledge_integrity", "verify_program", "verify_policy",
    "tracker",  # inside the subscription; test_tracker.py
    "end_several",  # test_stop.py
    "reveal",  # test_official.py
    "settle_case", "desk_settle", "replay_delivery", "approve_channel", "withdraw_channel", "rotate_channel_key", "start_gym",
    "gym_progress",  # inside the run
    "disconnect_app", "rotate_api_secret", "retire_api_secret", "revoke_api_tokens", "retire_api_client", "remove_api_keys", "retire_oversight_app",
    "desk_upload", "upload_progress", "refused_rows", "drop_upload",  # tests/consents/test_upload_pages.py
    "close_service",  # a button of desk_end
    "desk_link",  # desk_delivery by another way; tests/consents/test_links.py
    "tidy",  # "me" with a way back; tests/consents/test_counting.py
}  # fmt: skip


def test_every_page_of_the_site_is_looked_at():
    looked_at = set()
    for _, address, _ in PAGES.values():
        if not isinstance(address, str):
            looked_at.add(address.view)
            continue
        try:
            looked_at.add(resolve(address.partition("?")[0]).url_name)
        except Resolver404:
            continue
    named = {getattr(pattern, "name", None) for pattern in get_resolver().url_patterns} - {None}
    assert named - WITHOUT_A_PAGE - looked_at == set()
