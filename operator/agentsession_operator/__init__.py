"""The control plane of AgentSession: watches sessions, admits them under quotas, starts their pods, writes their status."""
