"""The files that run a gateway: systemd unit, compose stack, Kubernetes manifests. The wheel carries them."""

from spanbridge.deployment.kits import COMPOSE, KITS, KUBERNETES, SYSTEMD, WHEEL, Kit, files_root

__all__ = ["COMPOSE", "KITS", "KUBERNETES", "SYSTEMD", "WHEEL", "Kit", "files_root"]
