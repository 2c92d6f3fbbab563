"""The Node runtime: functions in JavaScript and TypeScript. What is in Python here never runs them."""
