"""The tests: unit (pure), broker (every adapter), process (real processes), e2e (HTTP to outcome)."""
