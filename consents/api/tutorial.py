"""The tutorial: from registering a client to a proven erasure, with curl alone. tests/faults/test_tutorial.py runs what stands
here, word for word, against a running demo."""

from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True, slots=True)
class Step:
    """`commands` follow on each other in one shell; `%PORTAL%` stands for our address."""

    title: Promise | str
    words: Promise | str
    commands: str


STEPS = (
    Step(
        _("준비: 셸 함수 몇 개"),
        _(
            "`./portal up`으로 띄운 데모와 sh, curl, openssl만 있으면 돼요. curl은 서버도, 두 사람의 브라우저도 맡아요. 브라우저로 직접 눌러도 똑같아요."
        ),
        r"""set -eu
PORTAL=%PORTAL%
HERE=$(mktemp -d); cd "$HERE"

b64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
unb64url() { s=$(tr -- '-_' '+/'); while [ $((${#s} % 4)) -ne 0 ]; do s="$s="; done; printf %s "$s" | openssl base64 -d -A; }
member() { sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p' | head -n 1; }       # of JSON
hidden() { sed -n 's/.*type="hidden" name="'"$1"'" value="\([^"]*\)".*/\1/p' "$2" | head -n 1; }  # of a form

# browse WHO ADDRESS [curl options]: a browser with its own cookies
browse() { who=$1 address=$2; shift 2; curl -sS -b "$who.jar" -c "$who.jar" "$@" "$PORTAL$address"; }
# press WHO PAGE ACTION [-d field=value]: open a page, and send the form that is on it
press() {
  browse "$1" "$2" -o page.html; who=$1 action=$3; shift 3
  browse "$who" "$action" --data-urlencode "csrfmiddlewaretoken=$(hidden csrfmiddlewaretoken page.html)" "$@"
}
sign_in() { press "$1" /accounts/login/ /accounts/login/ -o signed.html -d login="$2" -d password=bangjiteok-demo; }""",
    ),
    Step(
        _("클라이언트 등록하기"),
        _(
            "API를 아직 쓰지 않는 나란바퀴의 담당자(desk2@portal.example)로 로그인해서, 업무함의 ‘API와 열쇠’에서 클라이언트를 만들어요. 비밀은 한 번만 보여요."
        ),
        r"""sign_in desk desk2@portal.example
# whoever has done this before retires the client of that time
OLD=$(browse desk /desk/api/ | sed -n 's|.*/desk/api/clients/\([a-z0-9]*\)/retire/.*|\1|p' | head -n 1)
[ -z "$OLD" ] || press desk /desk/api/ "/desk/api/clients/$OLD/retire/" -o retired.html
press desk /desk/api/new/ /desk/api/new/ -o client.html -d days=90 \
  -d scopes=requests:write -d scopes=consents:read -d scopes=deliveries:ack \
  -d redirect_uris=https://naran.example/back
CLIENT_ID=$(sed -n 's/.*id="client-id".* value="\([^"]*\)".*/\1/p' client.html)
CLIENT_SECRET=$(sed -n 's/.*id="secret".* value="\([^"]*\)".*/\1/p' client.html)
echo "client: $CLIENT_ID"
""",
    ),
    Step(
        _("증거에 서명할 열쇠 등록하기"),
        _("지웠다는 증거에는 서명이 있어야 해요. 비밀 열쇠는 여러분에게만 있고, 우리는 공개 키만 알아요."),
        r"""openssl genpkey -algorithm ed25519 -out key.pem
X=$(openssl pkey -in key.pem -pubout -outform DER | tail -c 32 | b64url)
press desk /desk/api/keys/ /desk/api/keys/ -o keys.html --data-urlencode \
  "jwks={\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"alg\":\"Ed25519\",\"use\":\"sig\",\"kid\":\"naran-1\",\"x\":\"$X\"}]}"
""",
    ),
    Step(
        _("토큰 받기"),
        _("토큰은 10분 동안 쓸 수 있어요. 어느 회사인지는 토큰이 말해요."),
        r"""TOKEN=$(curl -sS --fail-with-body -u "$CLIENT_ID:$CLIENT_SECRET" -d grant_type=client_credentials \
  -d "scope=requests:write consents:read deliveries:ack" "$PORTAL/identity/o/api/token" | member access_token)
# api PATH [curl options]
api() { path=$1; shift; curl -sS --fail-with-body -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" "$@" "$PORTAL/api/v1/$path"; }
echo "consents so far: $(api 'consents?limit=1')" """,
    ),
    Step(
        _("서비스를 등록하고 약관을 게시하기"),
        _("약관은 한 번 게시하면 바뀌지 않아요. 첫 약관과 함께 서비스가 열려요."),
        r"""SERVICE=naran-ride-$(openssl rand -hex 4)
api "services/$SERVICE" -X PUT -o service.json -d '{
  "name_ko": "나란 출근길", "name_en": "Naran Commute",
  "summary_ko": "교통비를 모아 보여 드려요.", "summary_en": "What you spend on the way to work.",
  "benefit_ko": "한 달 교통비를 손으로 적지 않아도 돼요.", "benefit_en": "Nothing to write down.",
  "loss_ko": "교통비 요약이 오지 않아요.", "loss_en": "The summary stops.",
  "purpose_code": "mobility"}'
api "services/$SERVICE/terms" -H "Idempotency-Key: $SERVICE-1" -o terms.json -d '{
  "change_kind": "first",
  "summary_ko": "교통비를 셈하려고 예금 내역을 한 주에 한 번 받아요.", "summary_en": "Deposits once a week, to add up your fares.",
  "text_ko": "## 누가 받나요\n\n나란바퀴가 받아요.\n", "text_en": "## Who receives it\n\nNaran Wheels does.\n",
  "items": [
    {"kind": "transfer", "required": true, "source": "BKNEUT9001", "scopes": ["bank.list", "bank.deposit"],
     "cycle": "1/1w", "valid_months": 12, "title_ko": "느티은행에서 예금 정보 가져오기", "title_en": "Deposits from Neuti Bank",
     "purpose_ko": "교통비를 셈하려고 받아요.", "purpose_en": "To add up your fares.",
     "retention_ko": "그만두거나 지워 달라고 할 때까지", "retention_en": "Until you leave or ask"},
    {"kind": "marketing", "required": false, "valid_months": 12, "title_ko": "새 소식 받기", "title_en": "News",
     "purpose_ko": "새 기능을 알려 드려요.", "purpose_en": "To tell you about new features.",
     "retention_ko": "그만둘 때까지", "retention_en": "Until you leave", "grade": "02"}]}'
echo "terms: version $(sed -n 's/.*"version": *\([0-9]*\).*/\1/p' terms.json), state $(curl -sS "$PORTAL/api/v1/services/$SERVICE" | member state)" """,
    ),
    Step(
        _("동의 요청 등록하기"),
        _("PKCE의 code_challenge를 함께 내요. 답의 authorize_url로 사람의 브라우저를 보내요."),
        r"""VERIFIER=$(openssl rand -hex 32)
CHALLENGE=$(printf %s "$VERIFIER" | openssl dgst -sha256 -binary | b64url)
api consent-requests -H "Idempotency-Key: $SERVICE-2" -o request.json -d '{
  "service": "'"$SERVICE"'", "redirect_uri": "https://naran.example/back", "state": "af0ifjsldkj",
  "code_challenge": "'"$CHALLENGE"'", "code_challenge_method": "S256"}'
REQUEST=$(member id < request.json)
echo "authorize_url: $(member authorize_url < request.json)" """,
    ),
    Step(
        _("사람이 방지턱을 보고 동의하기"),
        _(
            "authorize_url을 브라우저로 열어 이새벽(saebyeok@portal.example)으로 로그인하면 몇 곳이 가지고 있는지 먼저 보여요. 여기서는 curl이 눌러요. 광고에는 동의하지 않아요."
        ),
        r"""sign_in me saebyeok@portal.example
press me "/requests/$REQUEST/" "/requests/$REQUEST/" -o taken.html
browse me "/services/$SERVICE/join/?request=$REQUEST" -o bump.html
browse me "/services/$SERVICE/join/ask/" -o ask.html -G -d reviewed=on -d request="$REQUEST" \
  --data-urlencode "seen=$(hidden seen bump.html)"
browse me "/services/$SERVICE/join/ask/" -o joined.html -d months=12 -d reviewed=on -d request="$REQUEST" \
  --data-urlencode "csrfmiddlewaretoken=$(hidden csrfmiddlewaretoken ask.html)" \
  --data-urlencode "seen=$(hidden seen ask.html)" --data-urlencode "terms=$(hidden terms ask.html)" \
  --data-urlencode "digest=$(hidden digest ask.html)" --data-urlencode "language=$(hidden language ask.html)"
BACK=$(press me "/requests/$REQUEST/" "/requests/$REQUEST/return/" -o /dev/null -w '%{redirect_url}')
CODE=$(printf %s "$BACK" | sed 's/.*[?&]code=\([^&]*\).*/\1/')
echo "back at: ${BACK%%\?*}" """,
    ),
    Step(
        _("code를 결과로 바꾸기"),
        _("code는 1분 안에 한 번만 통해요. 선택 항목을 거절했으니 partly_granted예요."),
        r"""api consent-requests/redeem -o granted.json -d '{
  "code": "'"$CODE"'", "code_verifier": "'"$VERIFIER"'", "redirect_uri": "https://naran.example/back"}'
SUBSCRIPTION=$(member subscription < granted.json)
echo "outcome: $(member outcome < granted.json), subscription: $SUBSCRIPTION" """,
    ),
    Step(
        _("사람이 그만두기"),
        _("이새벽이 그만두면서 받아간 정보도 지워 달라고 해요."),
        r"""press me "/me/subscriptions/$SUBSCRIPTION/end/" "/me/subscriptions/$SUBSCRIPTION/end/" -o left.html -d erase=on""",
    ),
    Step(
        _("전달받고, 받았다고 답하기"),
        _(
            "서명된 SET을 가져가서 우리 서비스의 것을 골라요. 실제로는 /.well-known/jwks.json의 열쇠로 서명부터 확인하세요."
        ),
        r"""api sets/poll -o sets.json -d '{"maxEvents": 100, "returnImmediately": true}'
tr ',' '\n' < sets.json | grep -o 'eyJ[^"]*' | while read -r SET; do
  printf %s "$SET" | cut -d. -f2 | unb64url; echo
done | grep "$SERVICE" | grep subscription-ended > event.json
DELIVERY=$(member jti < event.json) TXN=$(member txn < event.json)
VERSION=$(sed -n 's/.*"version": *\([0-9]*\).*/\1/p' event.json)
echo "delivery: $(api "deliveries/$DELIVERY/ack" -d '{}' | member state)" """,
    ),
    Step(
        _("지우고, 서명한 증거 내기"),
        _("멈추고 지운 다음, 무엇을 언제 지웠는지 적은 보고서의 지문을 넣어 서명해요."),
        r"""echo "deleted everything of $SUBSCRIPTION" > report.txt
NOW=$(date +%s)
HEADER=$(printf '{"alg":"Ed25519","kid":"naran-1","typ":"deletion-evidence+jwt"}' | b64url)
CLAIMS=$(printf '{"iss":"TRNARA9002","aud":"%s","iat":%s,"jti":"%s","txn":"%s","delivery":"%s","subscription":"%s","version":%s,"status":"erased","method":"deleted","completed_at":%s,"report":{"sha256":"%s","url":"https://naran.example/report"}}' \
  "$PORTAL" "$NOW" "$SERVICE" "$TXN" "$DELIVERY" "$SUBSCRIPTION" "$VERSION" "$NOW" \
  "$(openssl dgst -sha256 -r report.txt | cut -d' ' -f1)" | b64url)
printf %s "$HEADER.$CLAIMS" > signed.txt
openssl pkeyutl -sign -inkey key.pem -rawin -in signed.txt -out signature.bin
printf %s "$HEADER.$CLAIMS.$(b64url < signature.bin)" > evidence.jwt
curl -sS --fail-with-body -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/jwt" \
  --data-binary @evidence.jwt "$PORTAL/api/v1/evidence" -o receipt.json
echo "delivery is now: $(member state < receipt.json)" """,
    ),
    Step(
        _("지워진 것이 증명됐는지 보기"),
        _(
            "여러분에게는 서명한 영수증이, 사람에게는 확인서가 남아요. 둘 다 우리 없이 확인할 수 있어요(/verify/)."
        ),
        r"""api "evidence/$SERVICE" -o evidence.json
echo "evidence: $(member status < evidence.json), receipt: $(member receipt < evidence.json | cut -c1-20)…"
browse me "/me/subscriptions/$SUBSCRIPTION/certificate/" -o certificate.html
grep -c "나란바퀴" certificate.html""",
    ),
)


def script(portal: str) -> str:
    """All of it, as one would paste it into a shell."""
    return "\n".join(step.commands.replace("%PORTAL%", portal) for step in STEPS) + "\n"
