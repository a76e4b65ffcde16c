"""The pretend organizations' side of the portal's API: keys, tokens, acknowledgements, signed evidence."""

import asyncio
import hashlib
import json
import time
from urllib.parse import quote

import aiohttp
from joserfc import jws

from providers import signing

from .parties import Parties, Party

JWKS_LIFE = 3600  # seconds
JWKS_REFETCH = 60  # seconds between two looks for an unknown key


class Later(Exception):
    """The portal is not there or not ready: try again. `wait` is what it asked for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait


class Never(Exception):
    """The portal took it for wrong: the same again would be of no use."""


class Portal:
    def __init__(self, parties: Parties):
        self._parties = parties
        self._client: aiohttp.ClientSession  # from open() to close()
        self._jwks: dict = {}
        self._jwks_at = float("-inf")
        self._jwks_lock = asyncio.Lock()
        self._tokens: dict[str, tuple[str, float]] = {}
        self._token_locks: dict[str, asyncio.Lock] = {}
        self._token_endpoint: dict[str, str] = {}

    async def open(self) -> None:
        self._client = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=10), connector=aiohttp.TCPConnector(limit=16)
        )

    async def close(self) -> None:
        await self._client.close()

    @property
    def address(self) -> str:
        address = self._parties.portal
        if not address:
            raise Later("no portal is known yet")
        return address

    async def verified_set(self, compact: str, audience: str, now: int) -> dict:
        """The claims of a SET that the portal signed for `audience`; BadSignature or Later."""
        for fresh in (False, True):
            jwks = await self._keys(fresh=fresh)
            try:
                return signing.verify_jws(
                    compact, jwks=jwks, typ=signing.SET_TYP, issuer=self.address, audience=audience, now=now
                )
            except signing.BadSignature as error:
                if error.reason != "kid" or fresh:
                    raise
        raise AssertionError("unreachable")

    async def _keys(self, *, fresh: bool) -> dict:
        async with self._jwks_lock:
            age = time.monotonic() - self._jwks_at
            if age > (JWKS_REFETCH if fresh else JWKS_LIFE):
                self._jwks = await self._json("GET", f"{self.address}/.well-known/jwks.json")
                self._jwks_at = time.monotonic()
            return self._jwks

    async def acknowledge(self, party: Party, jti: str) -> None:
        """Say that the message was received."""
        url = f"{self.address}/api/v1/deliveries/{quote(jti, safe='')}/ack"
        await self._call(party, url, "application/json", b"{}", f"ack-{jti}")

    async def prove(self, party: Party, evidence: str, jti: str) -> None:
        """Hand in one signed evidence."""
        await self._call(party, f"{self.address}/api/v1/evidence", "application/jwt", evidence.encode(), jti)

    async def tell_result(self, party: Party, stop: str, transaction: dict) -> None:
        """Say what became of a stop of a transfer request (전송요구-003). `stop` is the portal's x-api-tran-id of it."""
        content = {"type": "02", "result_code": "00000", "result_msg": "성공", **transaction}
        tran = f"{party.code}M{hashlib.sha256(f'{party.code} {stop}'.encode()).hexdigest()[:14].upper()}"
        url = f"{self.address}/mydata/consents/result"
        body = json.dumps(content, ensure_ascii=False).encode()
        await self._call(party, url, "application/json", body, tran, {"x-api-tran-id": tran})

    async def _call(
        self,
        party: Party,
        url: str,
        content_type: str,
        body: bytes,
        idempotency_key: str,
        more: dict[str, str] | None = None,
    ) -> None:
        for last in (False, True):
            headers = {
                "Authorization": f"Bearer {await self._token(party)}",
                "Content-Type": content_type,
                "Idempotency-Key": idempotency_key,
                **(more or {}),
            }
            status, answer, wait = await self._ask("POST", url, headers=headers, data=body)
            if status == 401 and not last:
                self._tokens.pop(party.code, None)  # revoked, or the portal started over
                continue
            break
        if status < 300 or status == 409:  # 409: the portal knows more already
            return
        reason = f"HTTP {status} {answer[:200].decode('utf-8', 'replace')}"
        if status in {401, 403, 404, 408, 425, 429} or status >= 500:
            raise Later(reason, wait)
        raise Never(reason)

    async def _token(self, party: Party) -> str:
        lock = self._token_locks.setdefault(party.code, asyncio.Lock())
        async with lock:
            token, until = self._tokens.get(party.code, ("", 0.0))
            if time.monotonic() < until:
                return token
            form = {
                "grant_type": "client_credentials",
                "scope": "deliveries:ack",
                "client_id": party.client_id,
                "client_secret": party.client_secret,
            }
            granted = await self._json("POST", await self._endpoint(), data=form)
            try:
                token, life = str(granted["access_token"]), float(granted.get("expires_in", 60))
            except (KeyError, TypeError, ValueError) as error:
                raise Later("the token answer has another form") from error
            self._tokens[party.code] = (token, time.monotonic() + max(life - 30, 5))
            return token

    async def _endpoint(self) -> str:
        address = self.address
        if address not in self._token_endpoint:
            found = await self._json("GET", f"{address}/.well-known/openid-configuration")
            endpoint = found.get("token_endpoint")
            if not isinstance(endpoint, str):
                raise Later("the portal names no token endpoint")
            self._token_endpoint[address] = endpoint
        return self._token_endpoint[address]

    async def _json(self, method: str, url: str, **kwargs) -> dict:
        status, body, wait = await self._ask(method, url, **kwargs)
        try:
            answer = json.loads(body) if status == 200 else None
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise Later(f"{url.rpartition('/')[2]}: HTTP {status}", wait)
        return answer

    async def _ask(self, method: str, url: str, **kwargs) -> tuple[int, bytes, float]:
        try:
            async with self._client.request(method, url, allow_redirects=False, **kwargs) as response:
                wait = response.headers.get("Retry-After", "")
                return response.status, await response.read(), float(wait) if wait.isdecimal() else 0.0
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Later(f"the portal does not answer ({type(error).__name__})") from error


def evidence(party: Party, claims: dict) -> str:
    """One signed statement (compact JWS): that data stopped flowing, or was erased."""
    header = {"alg": "ES256", "kid": party.kid, "typ": signing.EVIDENCE_TYP}
    return jws.serialize_compact(header, json.dumps(claims).encode(), party.key, algorithms=["ES256"])
