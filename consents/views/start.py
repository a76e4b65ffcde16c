"""Where a sign-in leads: each role has its own first page."""

from django.shortcuts import redirect

from consents import access


@access.signed_in
def start(request):
    home = {access.REGULATOR: "oversight", access.OPERATOR_ADMIN: "desk"}
    return redirect(home.get(access.role(request.user) or "", "me"))
