export const config = { timeout: 0.5, retries: 0 };

export const handler = () => new Promise((resolve) => { setTimeout(resolve, 120_000); });
