"""What the runtime takes from its environment as secret, and what of that its model's client may see."""

from __future__ import annotations

from session_runtime.agent_assembly import agent_config
from session_runtime.credentials import credentials, provider_environment, secret_values
from session_runtime.wire import CREDENTIAL_PREFIX, HEADER_PREFIX, OAUTH_PREFIX, AgentSettings
from support.runtime.harness import config

TOKEN = "of-the-header"


def test_credentials_keep_their_names_and_do_not_steer_the_process() -> None:
    prefix = "AGENTSESSION_CREDENTIAL_"
    names = ("OPENAI_API_KEY", "PATH", "HOME", "LD_PRELOAD", "PYTHONPATH", "AGENTSESSION_CONFIG", "")
    environment = {f"{prefix}{name}": f"value of {name}" for name in names} | {"PATH": "/bin", "OTHER": "x"}
    assert set(credentials(environment)) == set(names)
    assert provider_environment(environment) == {"OPENAI_API_KEY": "value of OPENAI_API_KEY"}
    settings = agent_config(config(agent=AgentSettings(model="m", max_iterations=7)), {f"{prefix}A": "secret"})
    assert (settings.model, settings.max_iterations) == ("m", 7)
    assert settings.secrets == ("secret",)


def test_headers_are_secret_as_credentials_are_and_so_is_the_token_alone() -> None:
    environment = {f"{HEADER_PREFIX}0_0": f"Bearer {TOKEN}\n", f"{CREDENTIAL_PREFIX}HF_TOKEN": "hf_1\n", "PATH": "/bin"}
    assert secret_values(environment) == ("hf_1", f"Bearer {TOKEN}", TOKEN)


def test_an_oauth_clients_secret_and_key_are_secret_its_id_not() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----"
    environment = {
        f"{OAUTH_PREFIX}0_ID": "agents",
        f"{OAUTH_PREFIX}0_SECRET": "us-central\n",
        f"{OAUTH_PREFIX}1_KEY": f"{key}\n",
    }
    assert secret_values(environment) == ("us-central", key)
    assert provider_environment(environment) == {}
