// Makes pictures smaller: each new pixel is the mean of those that it stands for.

/** `data`: four bytes for each pixel, red, green, blue, alpha. The picture keeps its proportions. */
exports.scale = function scale({ width, height, data }, widthMax) {
  const factor = Math.max(1, width / widthMax);
  const small = { width: Math.round(width / factor), height: Math.max(1, Math.round(height / factor)) };
  small.data = Buffer.alloc(small.width * small.height * 4);
  for (let y = 0; y < small.height; y++) {
    for (let x = 0; x < small.width; x++) {
      const area = { left: Math.floor(x * factor), top: Math.floor(y * factor) };
      area.right = Math.max(area.left + 1, Math.min(width, Math.floor((x + 1) * factor)));
      area.bottom = Math.max(area.top + 1, Math.min(height, Math.floor((y + 1) * factor)));
      for (let channel = 0; channel < 4; channel++) {
        small.data[(y * small.width + x) * 4 + channel] = mean(data, width, area, channel);
      }
    }
  }
  return small;
};

function mean(data, width, { left, top, right, bottom }, channel) {
  let sum = 0;
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) sum += data[(y * width + x) * 4 + channel];
  }
  return Math.round(sum / ((right - left) * (bottom - top)));
}
