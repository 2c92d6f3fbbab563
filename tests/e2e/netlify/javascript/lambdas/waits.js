exports.handler = () => new Promise((resolve) => { setTimeout(resolve, 120_000); });
