"""In-memory stand-ins behind the ports. Each passes the same contract tests as the real adapter."""
