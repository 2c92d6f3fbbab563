throw new RangeError('it fails while it is loaded');
