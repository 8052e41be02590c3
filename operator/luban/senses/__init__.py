"""What is known of the world and when it was seen: asked once, at its own pace, for all clusters."""
