/* One builder a family of architectures; each writes the tensors, and the keys that only its family has. */
#ifndef ORACLE_BUILDERS_H
#define ORACLE_BUILDERS_H

struct make;

void shape_plain(
    struct make *k);            /* transformer blocks, as struct shape's `has` says; dense or with experts */
void shape_mla(struct make *k); /* deepseek2 */
void shape_minicpm3(struct make *k);
void shape_qwen(struct make *k);
void shape_apertus(struct make *k);
void shape_bare(struct make *k); /* norms without weights */
void shape_openelm(struct make *k);
void shape_arctic(struct make *k);
void shape_bitnet(struct make *k);
void shape_plamo2(struct make *k);
void shape_kimi_linear(struct make *k);
void shape_varied(struct make *k); /* heads differ between full ('*') and sliding ('M') attention */
void shape_chameleon(struct make *k);
void shape_grovemoe(struct make *k);
void shape_cogvlm(struct make *k);
void shape_granite_swa(struct make *k);
void shape_minimax_01(struct make *k);
void shape_gemma3n(struct make *k);
void shape_gemma4(struct make *k);
void shape_mamba(struct make *k);
void shape_mamba2(struct make *k);
void shape_rwkv6(struct make *k);
void shape_rwkv7(struct make *k);
void shape_qrwkv6(struct make *k);
void shape_euro_bert(struct make *k);
void shape_jamba(struct make *k);
void shape_falcon_h1(struct make *k);
void shape_granite_hybrid(struct make *k);
void shape_lfm2(struct make *k);
void shape_nemotron_h(struct make *k);
void shape_qwen3next(struct make *k);
void shape_bert(struct make *k); /* bert, nomic-bert, jina-bert-v2 */
void shape_modern_bert(struct make *k);
void shape_t5(struct make *k);
void shape_t5_encoder(struct make *k);

#endif
