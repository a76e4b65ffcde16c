"""What a person can keep: the receipt of a join, the terms, the certificate of an end, and each fact's receipt and proof."""

import json

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from consents import access, receipts, typesetting
from consents.models import Subscription
from consents.queries import agreed, certificates, proofs
from consents.queries import subscription as screens
from consents.views.replies import own, refused

PROOF = "text/plain; charset=utf-8"
JWS = "application/jose"


# --- the certificate of an end -------------------------------------------------------------------------------------------


@access.person
@require_safe
def certificate(request, pk):
    mine, at = own(request, pk), timezone.now()
    if mine.state != Subscription.State.ENDED:
        words = _("아직 그만두지 않은 서비스라서 확인서가 없어요. 그만두면 바로 생겨요.")
        return refused(request, words, back=mine, status=404, title=_("아직 확인서가 없어요"))
    paper, name = certificates.certificate(mine, at=at), f"certificate-{pk}"
    match request.GET.get("format"):
        case "json":
            return _file(request, mine, paper, name)
        case "jws":
            return download(paper.compact, JWS, f"{name}.jws")
        case "pdf":
            return _sheet(request, mine, paper, name, at=at)
    return render(request, "person/certificate.html", {"subscription": mine, "paper": paper, "at": at})


def _file(request, mine, paper, name):
    try:
        return _json(certificates.file(paper), "application/json", f"{name}.json")
    except proofs.Unreadable:
        return _unreadable(request, reverse("certificate", args=[mine.pk]))


def _sheet(request, mine, paper, name, *, at):
    language = "en" if get_language() == "en" else "ko"
    try:
        sheet = certificates.sheet(mine, paper, at=at)
        pdf = typesetting.pdf(sheet, template="papers/certificate.typ", language=language, at=at)
    except typesetting.CannotSet:
        words = _(
            "지금은 PDF를 만들지 못해요. 조금 뒤에 다시 하거나, 이 페이지를 인쇄하거나, JSON 파일을 받아 주세요."
        )
        back = reverse("certificate", args=[mine.pk])
        return refused(request, words, back_url=back, status=503, title=_("PDF를 만들지 못했어요"))
    return download(pdf, "application/pdf", f"{name}.pdf")


# --- what was agreed -----------------------------------------------------------------------------------------------------


@access.person
@require_safe
def receipt(request, pk):
    mine, at = own(request, pk), timezone.now()
    paper = screens.receipt(mine)
    compact = receipts.signed(paper.document, subject=mine.person.subject_id, at=at)
    if request.GET.get("format") == "json":
        return _json({**paper.document, "jws": compact}, "application/ld+json", f"receipt-{pk}.jsonld")
    context = {"subscription": mine, "paper": paper, "compact": compact, "at": at}
    return render(request, "person/receipt.html", context)


@access.person
@require_safe
def terms(request, pk):
    mine = own(request, pk)
    return render(request, "person/terms.html", {"subscription": mine, "agreed": agreed.agreed(mine)})


# --- one fact ------------------------------------------------------------------------------------------------------------


@access.person
@require_safe
def entry_receipt(request, event_id):
    entry = access.own_entry(request, event_id)
    return download(proofs.receipt(entry), JWS, f"{event_id}.jws")


@access.person
@require_safe
def entry_proof(request, event_id):
    entry = access.own_entry(request, event_id)
    return proof_of(request, entry, back_url=reverse("history"))


# --- answers -------------------------------------------------------------------------------------------------------------


def proof_of(request, entry, *, back_url: str):
    """The proof of a fact as a file, or a page that says when there will be one."""
    try:
        text = proofs.proof(entry)
    except proofs.Unreadable:
        return _unreadable(request, back_url)
    if text is None:
        standing = proofs.standings([entry])[entry.event_id]
        words = certificates.standing_words(standing) + ". " + _("들어가면 바로 증명을 받을 수 있어요.")
        return refused(request, words, back_url=back_url, status=409, title=_("아직 증명이 없어요"))
    return download(text, PROOF, f"{entry.event_id}.tlog-proof")


def _unreadable(request, back_url: str):
    words = _("공개된 기록부를 지금 읽지 못해요. 기록은 그대로 있어요. 조금 뒤에 다시 해 주세요.")
    return refused(request, words, back_url=back_url, status=503, title=_("지금은 증명을 만들지 못해요"))


def _json(document: dict, content_type: str, name: str) -> HttpResponse:
    body = json.dumps(document, ensure_ascii=False, indent=2)
    return download(body + "\n", f"{content_type}; charset=utf-8", name)


def download(body: str | bytes, content_type: str, name: str) -> HttpResponse:
    """A file that the browser keeps; `name` is our own, never what somebody typed."""
    return HttpResponse(
        body,
        content_type=content_type,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
