"""The only settings file. A difference between machines is an environment variable with a safe default."""

import os
import sys
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from celery.schedules import crontab
from csp.constants import NONCE, NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from . import identity, logs

BASE_DIR = Path(__file__).resolve().parent.parent
EXAMPLE_SECRETS = {"", "change-me", "changeme", "secret", "insecure", "django-insecure"}


def env(name: str, default: str = "") -> str:
    """The variable, or the content of the file that `NAME_FILE` names, or the default."""
    if name in os.environ:
        return os.environ[name]
    if path := os.environ.get(f"{name}_FILE"):
        return Path(path).read_text(encoding="utf-8").strip()
    return default


def flag(name: str) -> bool:
    return env(name).lower() in {"1", "true", "yes", "on"}


DEBUG = flag("DEBUG")
DEMO = flag("DEMO")
TESTING = "pytest" in sys.modules
SECRET_KEY = env("SECRET_KEY")
if SECRET_KEY.lower() in EXAMPLE_SECRETS or SECRET_KEY.startswith("django-insecure") or len(SECRET_KEY) < 32:
    raise ImproperlyConfigured(
        "SECRET_KEY is missing, shorter than 32 characters or an example: set a random one."
    )
SECRET_KEY_FALLBACKS = [key for key in env("SECRET_KEY_FALLBACKS").split() if key]

PORTAL_URL = env("PORTAL_URL", "http://127.0.0.1:8000").rstrip("/")
_portal = urlsplit(PORTAL_URL)
SECURE = _portal.scheme == "https"
ALLOWED_HOSTS = env("ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]").split(",") + (
    [_portal.hostname] if _portal.hostname else []
)
CSRF_TRUSTED_ORIGINS = [PORTAL_URL]
PORTAL_KEYS_DIR = Path(env("PORTAL_KEYS_DIR", str(BASE_DIR / "var" / "keys")))
# The log's name for ever (C2SP): it may not move with a port.
LEDGER_ORIGIN = env("LEDGER_ORIGIN", f"{_portal.hostname}/log/2026")
# Tiles and checkpoint lie here as files, under the addresses that /log/ serves them at.
LEDGER_DIR = Path(env("LEDGER_DIR", str(Path(env("PORTAL_STATE_DIR", str(BASE_DIR / "var"))) / "ledger")))
# Which witnesses must have cosigned a checkpoint before it is published (C2SP tlog-policy); no file: none.
LEDGER_POLICY = Path(env("LEDGER_POLICY", str(LEDGER_DIR / "policy.txt")))
# The signer's own folder: its key, and the size and root it signed last. It must survive a restored database.
SIGNER_DIR = Path(env("SIGNER_DIR", str(PORTAL_KEYS_DIR / "signer")))
SIGNER_SOCKET = env("SIGNER_SOCKET")
# The pretend regulator's witness of the demo: like SANDBOX_URL an address on loopback that may be called.
WITNESS_URL = env("WITNESS_URL").rstrip("/")
# The pretend operators' server. Only exactly this address may be reached on loopback; empty in production.
SANDBOX_URL = env("SANDBOX_URL").rstrip("/")

INSTALLED_APPS = [
    "config",
    "consents",
    "providers",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.humanize",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.usersessions",
    "allauth.idp.oidc",
    "rest_framework",
    "drf_spectacular",
    "django_filters",
    "django_htmx",
    "django_structlog",
    "django_prometheus",
    "csp",
]
MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_structlog.middlewares.RequestMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "allauth.usersessions.middleware.UserSessionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "consents.access.GuardMiddleware",
    "consents.views.errors.WordsMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "consents.access.navigation",
            ],
        },
    }
]


def database(url: str) -> dict:
    """Django's settings for a postgresql:// address; `?host=` may name a socket folder."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ImproperlyConfigured(
            "DATABASE_URL must be a postgresql:// address; none was given or it is another engine."
        )
    options = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django_prometheus.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")) or "portal",
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("host", parts.hostname or ""),
        "PORT": str(parts.port or options.pop("port", "")),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": options,
        "ATOMIC_REQUESTS": False,
    }


DATABASES = {"default": database(env("DATABASE_URL", "postgresql://portal@/portal"))}
# The sequencer may come as a role of its own that can order the log and do nothing else (manage.py harden_database).
LEDGER_ALIAS = "default"
if _ledger_url := env("LEDGER_DATABASE_URL"):
    LEDGER_ALIAS = "sequencer"
    DATABASES[LEDGER_ALIAS] = {**database(_ledger_url), "TEST": {"MIRROR": "default"}}
# So may the privacy officer, who alone deletes disclosures, and cannot read them.
PRIVACY_ALIAS = "default"
if _privacy_url := env("PRIVACY_DATABASE_URL"):
    PRIVACY_ALIAS = "privacy"
    DATABASES[PRIVACY_ALIAS] = {**database(_privacy_url), "TEST": {"MIRROR": "default"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env("REDIS_URL", "redis://127.0.0.1:6379/0")
# What keeps attackers out (limits of sign-in, codes that work once) holds while the broker is down; comfort may go with it.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "portal_cache",
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    },
    "comfort": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL},
}
if TESTING:
    CACHES = {name: {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"} for name in CACHES}

# --- people and sign-in -------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "consents.Person"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
    # Machine-made client secrets carry 256 random bits: stretching them buys nothing and costs 300 ms a token.
    "providers.vault.MachineSecretHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_REDIRECT_URL = "/start/"
LOGIN_URL = "account_login"
ACCOUNT_ADAPTER = "consents.accounts.AccountAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_USER_DISPLAY = "consents.accounts.display"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = [
    "email*",
    "password1",
]  # a password is possible, not needed: codes and passkeys do without
ACCOUNT_SIGNUP_FORM_CLASS = "consents.forms.people.SignupForm"
ACCOUNT_UNIQUE_EMAIL = True
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
ACCOUNT_LOGIN_BY_CODE_ENABLED = True
ACCOUNT_PASSWORD_RESET_BY_CODE_ENABLED = True
ACCOUNT_PREVENT_ENUMERATION = True
ACCOUNT_LOGOUT_REDIRECT_URL = "/"
ACCOUNT_SESSION_REMEMBER = False
ACCOUNT_EMAIL_SUBJECT_PREFIX = "[방지턱] "
ACCOUNT_REAUTHENTICATION_TIMEOUT = 300
ACCOUNT_DEFAULT_HTTP_PROTOCOL = _portal.scheme
ALLAUTH_TRUSTED_PROXY_COUNT = int(env("TRUSTED_PROXY_COUNT", "0"))
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_PASSKEY_SIGNUP_ENABLED = True
MFA_TOTP_ISSUER = "방지턱"
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not SECURE
USERSESSIONS_TRACK_ACTIVITY = False
SOCIALACCOUNT_ONLY = False

# --- our own OAuth2/OIDC server -------------------------------------------------------------------------------------
IDP_OIDC_ADAPTER = "consents.oauth.OIDCAdapter"
IDP_OIDC_ACCESS_TOKEN_EXPIRES_IN = 600
IDP_OIDC_REFRESH_TOKEN_EXPIRES_IN = (
    30 * 24 * 3600
)  # an application that is not used for a month is let in anew
IDP_OIDC_INTROSPECTION_ENABLED = True
IDP_OIDC_RATE_LIMITS = (
    False  # ours are in PostgreSQL, and hold while the cache is down: consents/turnstile.py
)

# --- browser safety -------------------------------------------------------------------------------------------------
SESSION_COOKIE_NAME = "__Host-sid" if SECURE else "sid"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = SECURE
SESSION_COOKIE_AGE = 8 * 60 * 60
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = LANGUAGE_COOKIE_SAMESITE = "Lax"
LANGUAGE_COOKIE_HTTPONLY = True
CSRF_USE_SESSIONS = True
CSRF_FAILURE_VIEW = "consents.views.errors.csrf_failure"
SECURE_HSTS_SECONDS = 31_536_000 if SECURE else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = SECURE
SECURE_SSL_REDIRECT = SECURE
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_REFERRER_POLICY = "same-origin"
if flag("BEHIND_PROXY"):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 262_144
FILE_UPLOAD_HANDLERS = [  # never Django's temporary files, which hold people's CI in clear (T24)
    "django.core.files.uploadhandler.MemoryFileUploadHandler",
    "consents.forms.sealed.SealedUploadHandler",
]
DATA_UPLOAD_MAX_NUMBER_FIELDS = 200
CONTENT_SECURITY_POLICY: dict[str, dict[str, list]] = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "manifest-src": [SELF],
        "base-uri": [NONE],
        "object-src": [NONE],
        "frame-ancestors": [NONE],
    }
}

# The header in which the proxy that ends TLS gives the SERIALNUMBER of the client's verified certificate, and which clients
# cannot set; empty where no certificate is asked for. Used by the Korean support API.
MTLS_SERIAL_HEADER = env("MTLS_SERIAL_HEADER")

# --- language and time -----------------------------------------------------------------------------------------------
LANGUAGE_CODE = "ko"
LANGUAGES = [("ko", "한국어"), ("en", "English")]
LOCALE_PATHS = [BASE_DIR / "config" / "locale"]
TIME_ZONE = "Asia/Seoul"
USE_TZ = USE_I18N = True

# --- static files ----------------------------------------------------------------------------------------------------
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = Path(env("STATIC_ROOT", str(BASE_DIR / "var" / "static")))
WHITENOISE_USE_FINDERS = not SECURE
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if SECURE
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}


# --- mail --------------------------------------------------------------------------------------------------------------
def mail(url: str) -> dict:
    """Settings for smtp://user:pass@host:port, smtps://…, file:///folder or console:."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return {
            "EMAIL_BACKEND": "django.core.mail.backends.filebased.EmailBackend",
            "EMAIL_FILE_PATH": parts.path,
        }
    if parts.scheme in {"smtp", "smtps"}:
        return {
            "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "EMAIL_HOST": parts.hostname or "localhost",
            "EMAIL_PORT": parts.port or (465 if parts.scheme == "smtps" else 25),
            "EMAIL_HOST_USER": unquote(parts.username or ""),
            "EMAIL_HOST_PASSWORD": unquote(parts.password or ""),
            "EMAIL_USE_SSL": parts.scheme == "smtps",
        }
    return {"EMAIL_BACKEND": "django.core.mail.backends.console.EmailBackend"}


globals().update(mail(env("EMAIL_URL", "console:")))
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env("MAIL_FROM", f"방지턱 <no-reply@{_portal.hostname}>")

# --- API ---------------------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["consents.api.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["consents.api.authentication.Nobody"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["consents.api.problems.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "consents.api.problems.exception_handler",
    "DEFAULT_PAGINATION_CLASS": None,
    "URL_FORMAT_OVERRIDE": None,  # Accept says what is wanted, and no parameter beside it
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    "DATETIME_FORMAT": "%Y-%m-%dT%H:%M:%S.%fZ",
}
# Requests a minute: of an organization's servers together, of a person's applications, of an address without a token. What a
# person ends is never refused for their number.
_more = 100 if TESTING else 1
API_PER_MINUTE = {"organization": 60_000 * _more, "person": 1_200 * _more, "visitor": 1_200 * _more}
SPECTACULAR_SETTINGS = {
    "TITLE": "방지턱 API",
    "DESCRIPTION": "Who holds my MyData, and how do I make them stop.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "consents.api.contract.complete",
    ],
    "SERVERS": [{"url": PORTAL_URL}],
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "SubscriptionState": "consents.models.Subscription.State",
        "ConsentState": "consents.models.Consent.State",
        "DeliveryState": "consents.models.Delivery.State",
        "ConsentRequestState": "consents.models.ConsentRequest.State",
        "ServiceState": "providers.models.Service.State",
        "ConsentKind": "providers.models.TermsItem.Kind",
        "NoticeKind": "consents.models.Notice.Kind",
        "UploadKind": "consents.models.uploads.Upload.Kind",
        "CaseKind": "consents.models.Case.Kind",
        "CallKind": "consents.models.WeeklyCalls.Kind",
        "Rider": "providers.models.catalogue.Rider",
    },
}

# --- who vouches for a person (README, "In production") ------------------------------------------------------------------
# In the demo a pretend provider believes what is typed; elsewhere people prove who they are where these settings say.
PRETEND_IDENTITY = DEMO
IDENTITY_CI_CLAIM = env("IDENTITY_CI_CLAIM", "ci")
SOCIALACCOUNT_ADAPTER = "consents.views.identity.IdentityAdapter"
SOCIALACCOUNT_STORE_TOKENS = False
SOCIALACCOUNT_REQUESTS_TIMEOUT = 5  # seconds
SOCIALACCOUNT_PROVIDERS = identity.providers(env)
INSTALLED_APPS += [f"allauth.socialaccount.providers.{name}" for name in SOCIALACCOUNT_PROVIDERS]
CONTENT_SECURITY_POLICY["DIRECTIVES"]["form-action"] += identity.origins(env)

# --- jobs --------------------------------------------------------------------------------------------------------------
CELERY_BEAT_SCHEDULE = {
    "deliver due messages": {"task": "consents.jobs.deliver", "schedule": 1.0, "options": {"expires": 5}},
    "order the log": {"task": "consents.jobs.sequence", "schedule": 2.0, "options": {"expires": 10}},
    "show the log to its witnesses": {
        "task": "consents.jobs.cosign",
        "schedule": 2.0,
        "options": {"expires": 10},
    },
    "verify what is published": {
        "task": "consents.jobs.monitor",
        "schedule": 60.0,
        "options": {"expires": 50},
    },
    "count the log again": {
        "task": "consents.jobs.recount",
        "schedule": crontab(hour=3, minute=40),
        "options": {"expires": 3600},
    },
    "take late stops further": {
        "task": "consents.jobs.escalate",
        "schedule": 30.0,
        "options": {"expires": 25},
    },
    "test the channels": {
        "task": "consents.jobs.verify_channels",
        "schedule": 30.0,
        "options": {"expires": 25},
    },
    "ask what became of stops": {
        "task": "consents.jobs.read_back",
        "schedule": 20.0,
        "options": {"expires": 20},
    },
    "take in uploaded files": {
        "task": "consents.jobs.take_in",
        "schedule": 2.0,
        "options": {"expires": 5},
    },
    "end what was closed": {"task": "consents.jobs.end_closed", "schedule": 5.0, "options": {"expires": 5}},
    "ask what is held": {"task": "consents.jobs.discover", "schedule": 15.0, "options": {"expires": 15}},
    "expire what is due": {"task": "consents.jobs.expire", "schedule": 60.0, "options": {"expires": 50}},
    "erase whose hold has ended": {
        "task": "consents.jobs.erase",
        "schedule": 24 * 3600.0,
        "options": {"expires": 3600},
    },
    "run trials in the gym": {"task": "consents.jobs.train", "schedule": 1.0, "options": {"expires": 5}},
    "take changes of channels further": {
        "task": "consents.jobs.change_channels",
        "schedule": 15.0,
        "options": {"expires": 30},
    },
    "raise notices": {"task": "consents.jobs.warn", "schedule": 24 * 3600.0, "options": {"expires": 3600}},
}

# --- logs --------------------------------------------------------------------------------------------------------------
LOGGING = logs.configuration(env("LOG_LEVEL", "INFO"))
logs.configure()
DJANGO_STRUCTLOG_CELERY_ENABLED = True
DJANGO_STRUCTLOG_IP_LOGGING_ENABLED = False
DJANGO_STRUCTLOG_USER_ID_FIELD = None
PROMETHEUS_EXPORT_MIGRATIONS = False
