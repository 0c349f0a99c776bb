"""Fine-tuning: adapters over quantised weights (`qlora`), or every weight of an encoder-decoder (`seq2seq`)."""
