"""The verifier for everybody: its page, its program, and the policy that this portal's log is read with."""

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from consents import access
from consents.forms.verify import LARGEST, VerifyForm
from consents.queries import verification


@access.public
@require_http_methods(["GET", "HEAD", "POST"])
def verify(request):
    answer, status = None, 200
    posted = request.method == "POST"
    form = VerifyForm(request.POST, request.FILES) if posted else VerifyForm()
    if posted and form.is_valid():
        own = form.cleaned_data["policy"]
        answer = verification.judged(
            form.cleaned_data["proof"].read(), own.read() if own else None, at=timezone.now()
        )
    elif posted:
        status = 400
    context = {
        "form": form, "answer": answer, "words": verification.words(), "policy": verification.policy_text()
    }  # fmt: skip
    return render(request, "public/verify.html", context, status=status)


verify.largest_form = 2 * LARGEST  # a certificate with hundreds of proofs, and a policy


@access.public
@require_safe
def verify_program(request):
    headers = {"Content-Disposition": 'attachment; filename="verify.py"'}
    return HttpResponse(verification.program(), content_type="text/x-python; charset=utf-8", headers=headers)


@access.public
@require_safe
def verify_policy(request):
    policy = verification.policy_text()
    if policy is None:
        raise Http404(_("이 포털에는 아직 기준 파일이 없어요."))
    headers = {"Content-Disposition": 'attachment; filename="policy.txt"'}
    return HttpResponse(policy, content_type="text/plain; charset=utf-8", headers=headers)
