"""What has changed in the API, newest first. Everything that another side could notice has a line here."""

import datetime
from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True, slots=True)
class Change:
    on: datetime.date
    lines: tuple[Promise | str, ...]


CHANGES = (
    Change(
        datetime.date(2026, 11, 28),
        (
            _(
                "지웠다고 서명한 것이 남아 있으면 erasure-requested를 새로 보내요. 지웠다고, 또는 법에 따라 보관한다고 거기에 서명해요."
            ),
            _("우리가 먼저 되물어 멈춘 것을 본 뒤에 온 ack와 stopped 증거도 받아요."),
            _(
                "증거에 consents를 적으면 전달이 말한 동의를 모두 적어야 해요. 빠지면 400, 남의 동의가 있으면 404예요."
            ),
            _("다른 회사나 그 서비스의 이름과 같거나 비슷해 보이는 서비스 이름은 409 name-is-taken이에요."),
            _(
                "우리가 되물어 보고 안 것은 seen_by_portal에 적고, 회사가 받았다고 하지 않았으면 received_at은 null이에요."
            ),
            _(
                "DELETE /uploads/{id}로 끝나지 않은 파일을 그만둘 수 있어요. 이미 넣기 시작했으면 409 already-begun이에요."
            ),
            _("닫은 서비스는 고치거나 약관을 낼 수 없어요(409 closed)."),
            _("한국 지원 API(지원-001…005)를 /mydata 아래에서 받아요."),
            _("동의 요청에 PKCE를 쓸 수 있어요. 돌아온 code는 POST /consent-requests/redeem에 한 번 내요."),
            _("동의 요청의 결과에 outcome과 items가 생겼어요. 일부만 동의한 것도 알 수 있어요."),
            _(
                "PUT /services/{client_id}와 POST /services/{client_id}/terms로 서비스를 등록하고 약관을 게시해요."
            ),
            _("모든 답에 RateLimit과 RateLimit-Policy 머리글이 있어요."),
            _(
                "동의 요청의 답에 expires_at, decide_in, returns_code, opened가 있어요. expires_at은 요청을 열면 한 번 바뀌어요."
            ),
            _(
                "가진 것을 알리면 한 줄의 잘못을 모두 알려드리고, 기다리던 줄을 대신했으면 replaced가 true예요."
            ),
            _("파일 조각의 길이가 Content-Range와 다르면 400이고, 아무것도 남기지 않아요."),
            _(
                "서명된 웹훅으로 메시지를 한 요청에 100개까지 받을 수 있고, 답에 ack와 setErrs를 적을 수 있어요."
            ),
            _(
                "지원-002와 003이 표의 모든 칸을 알려요. 서비스에 앱을 여는 주소(app_schemes)를 적을 수 있어요."
            ),
            _("지원-004와 005가 보낸 호출 수를 남기고, 감독 기관이 GET /oversight/weekly-counts로 읽어요."),
            _(
                "POST /references로 우리가 부르는 약정·동의·권한·토큰·전송요구의 이름을 알려요. 그 이름으로 끝내는 방식(CDR, 영국, FAPI, RFC 7009, 한국)에 꼭 있어야 해요."
            ),
            _("AsyncAPI 3 문서와, 누구나 아는 열쇠로 서명한 시험용 메시지가 생겼어요."),
            _(
                "토큰 주소의 답에도 RateLimit 머리글이 있어요. 없는 grant_type에는 unsupported_grant_type으로 답해요."
            ),
            _(
                "인가 요청이 틀렸거나 prompt=none이면 화면 없이 redirect_uri로 돌려보내요. code는 틀린 code_verifier로 내도 끝나요."
            ),
            _("DPoP 증명의 iat는 10초까지만 앞설 수 있어요. 증명이 틀리면 무엇을 고칠지 detail에 적어요."),
            _(
                "한국 지원 API의 토큰 답은 no-store이고 RateLimit은 클라이언트마다 세요. next_page는 우리가 준 것만 받고, tm_slot은 00부터 23까지 한 번씩이에요."
            ),
            _(
                "계정이 가질 수 없는 scope를 물으면 access_denied, scope가 없으면 invalid_scope, request와 request_uri는 받지 않는다고 답해요."
            ),
            _("토큰 주소의 401에는 WWW-Authenticate: Basic이 있고, 405도 JSON이에요."),
            _(
                "code_challenge_method만 있고 code_challenge가 없으면 400이에요. 415는 받는 형식을 알려요. 본문 전체를 가리키는 pointer는 #이에요."
            ),
            _(
                "파일 조각의 Content-Range가 앞 조각과 다른 전체 길이를 적으면 400이고, 아무것도 바뀌지 않아요."
            ),
        ),
    ),
    Change(datetime.date(2026, 11, 22), (_("v1을 열었어요."),)),
)
