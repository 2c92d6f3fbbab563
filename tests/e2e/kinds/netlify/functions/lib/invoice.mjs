import { PDFDocument, StandardFonts, rgb } from 'pdf-lib';

const A4 = [595.28, 841.89];
const ROWS = 30; // on one page

/** The invoice of an order as a PDF, a Uint8Array. */
export async function draw({ number, customer, items }) {
  const pdf = await PDFDocument.create();
  pdf.setTitle(`Invoice ${number}`);
  const [font, bold] = await Promise.all(
    [StandardFonts.Helvetica, StandardFonts.HelveticaBold].map((name) => pdf.embedFont(name)),
  );
  for (let first = 0; first < items.length; first += ROWS) {
    const page = pdf.addPage(A4);
    page.drawText(`Invoice ${number} for ${customer}`, { x: 50, y: 780, size: 18, font: bold });
    items.slice(first, first + ROWS).forEach(({ title, cents }, row) => {
      const y = 740 - row * 20;
      page.drawText(title, { x: 50, y, size: 11, font });
      page.drawText((cents / 100).toFixed(2), { x: 480, y, size: 11, font, color: rgb(0.2, 0.2, 0.2) });
    });
  }
  const total = items.reduce((sum, { cents }) => sum + cents, 0);
  pdf.getPages().at(-1).drawText(`Total: ${(total / 100).toFixed(2)}`, { x: 50, y: 80, size: 14, font: bold });
  return pdf.save();
}
