"""The fields of the Korean support API that others call at us, below /mydata: 지원-001…005, in the form of korea_fields."""

from collections.abc import Mapping

from providers.wires.korea_fields import DATE, FIELDS, ORG, RSP, TRUTH, Call, Field, rows, text

KINDS = {"1": "regular", "2": "not regular", "3": "list"}  # of calls that 지원-004 and 005 count
HOURS = tuple(f"{hour:02}" for hour in range(24))

_COUNT = Field("N", 9)
_FEW, _MAYBE_FEW = Field("N", 3), Field("N", 3, required=False)  # numbers of rows
_PAGE: Mapping[str, Field] = {
    "search_timestamp": Field("N", 14),
    "limit": Field("N", 3, required=False),
    "next_page": text("aNS", 1000, required=False),
}
_PAGED: Mapping[str, Field] = {
    **RSP, "search_timestamp": Field("N", 14), "next_page": text("aNS", 1000, required=False), "org_cnt": _FEW,
}  # fmt: skip
_OP = text("aN", 1, values=("I", "M", "D"))
_CALLS = rows(  # how one kind of API fared, by the hours of the day
    {
        "api_type": text("aN", 5, required=False),
        "tm_slot_cnt": _MAYBE_FEW,
        "tm_slot_list": rows(
            {
                "tm_slot": text("aN", 2, exact=True, values=HOURS),
                "rsp_avg": Field("F", 19),
                "rsp_total": Field("F", 19),
                "rsp_stdev": Field("F", 19),
                "success_api_cnt": _COUNT,
                "fail_api_cnt": _COUNT,
            },
            "tm_slot_cnt",
        ),
    },
    "api_type_cnt",
)


def _week(of_organization: Mapping[str, Field], of_day: Mapping[str, Field]) -> Mapping[str, Field]:
    """Seven days, and in each the numbers with every organization on the other side."""
    numbers = {"consent_new": _COUNT, "consent_revoke": _COUNT, "consent_own": _COUNT}
    counted = {**of_organization, **numbers, "api_type_cnt": _MAYBE_FEW, "api_type_list": _CALLS}
    day = {"stat_date": DATE, **of_day, "org_cnt": _MAYBE_FEW, "org_list": rows(counted, "org_cnt")}
    return {
        "type": text("aN", 1, values=tuple(KINDS)),
        "inquiry_date": DATE,
        "stat_date_cnt": Field("N", 1, values=("7",)),
        "stat_date_list": rows(day, "stat_date_cnt"),
    }


# What others call at us, below /mydata.
SERVED: dict[str, Call] = {
    "지원-001": Call("POST", "/mgmts/oauth/2.0/token", FIELDS["지원-101"].request, FIELDS["지원-101"].answer),
    "지원-002": Call(
        "GET",
        "/v2/mgmts/orgs",
        _PAGE,
        {
            **_PAGED,
            "org_list": rows(
                {
                    "op_type": _OP,
                    "org_code": ORG,
                    "org_type": text("aN", 2, values=("01", "02", "03", "04", "05", "06", "07", "99")),
                    "is_rcv_org": TRUTH,
                    "org_name": text("AH", 80),  # ours
                    "org_regno": text("N", 10, exact=True, required=False),
                    "corp_regno": text("N", 13, exact=True, required=False),
                    "serial_num": text("aNS", 64, required=False),  # ours
                    "address": text("AH", 200, required=False),  # ours
                    "domain": text("aNS", 253, required=False),  # ours
                    "domain_ip_cnt": _MAYBE_FEW,
                    "domain_ip_list": rows({"domain_ip": text("aNS", 45)}, "domain_ip_cnt", required=False),
                    "relay_org_code": text("aN", 10, exact=True, required=False),
                    "industry": text("aN", 10, required=False),
                    "auth_type": text("aN", 2, required=False, values=("01", "03")),
                    "ip_cnt": _MAYBE_FEW,
                    "ip_list": rows({"ip": text("aNS", 45)}, "ip_cnt", required=False),
                    "np_time_cnt": _MAYBE_FEW,
                    "np_time_list": rows({"np_time": text("aNS", 9)}, "np_time_cnt", required=False),
                },
                "org_cnt",
            ),
        },
    ),
    "지원-003": Call(
        "GET",
        "/v2/mgmts/services",
        _PAGE,
        {
            **_PAGED,
            "org_list": rows(
                {
                    "org_code": ORG,
                    "service_cnt": _FEW,
                    "service_list": rows(
                        {
                            "service_name": text("AH", 30),
                            "op_type": _OP,
                            "client_id": text("aN", 50),
                            "client_secret": text("aNS", 50, required=False),
                            "redirect_uri_cnt": Field("N", 1),
                            "redirect_uri_list": rows({"redirect_uri": text("aNS", 500)}, "redirect_uri_cnt"),
                            "app_scheme_cnt": _MAYBE_FEW,
                            "app_scheme_list": rows(
                                {"app_scheme": text("aNS", 100)}, "app_scheme_cnt", required=False
                            ),
                        },
                        "service_cnt",
                    ),
                },
                "org_cnt",
            ),
        },
    ),
    "지원-004": Call(
        "POST",
        "/v2/mgmts/statistics/mydata",
        {
            "client_id": text("aN", 50),
            **_week(
                {"org_code": ORG},
                {
                    "svr_usr_cnt": Field("N", 9, required=False),
                    "trsms_dem_cnt": Field("N", 9, required=False),
                },
            ),
        },
        RSP,
    ),
    "지원-005": Call(
        "POST",
        "/v2/mgmts/statistics/provider",
        # client_id is ours: an operator with several services cannot be told apart by its code alone
        _week({"org_code": ORG, "client_id": text("aN", 50, required=False)}, {}),
        RSP,
    ),
}
