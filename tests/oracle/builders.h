/* One builder a family of architectures; each writes the tensors, and the keys that only its family has. */
#ifndef ORACLE_BUILDERS_H
#define ORACLE_BUILDERS_H

struct make;

void build_plain(
    struct make *k);            /* transformer blocks, as struct shape's `has` says; dense or with experts */
void build_mla(struct make *k); /* deepseek2 */
void build_dbrx(struct make *k);
void build_llama4(struct make *k);
void build_glm4moe(struct make *k);
void build_gemma3n(struct make *k);
void build_gemma4(struct make *k);
void build_mamba(struct make *k);
void build_mamba2(struct make *k);
void build_rwkv6(struct make *k);
void build_rwkv7(struct make *k);
void build_jamba(struct make *k);
void build_falcon_h1(struct make *k);
void build_granite_hybrid(struct make *k);
void build_lfm2(struct make *k);
void build_nemotron_h(struct make *k);
void build_qwen3next(struct make *k);
void build_plamo2(struct make *k);
void build_bert(struct make *k); /* bert, nomic-bert, jina-bert-v2 */
void build_modern_bert(struct make *k);
void build_t5(struct make *k);
void build_t5_encoder(struct make *k);

#endif
