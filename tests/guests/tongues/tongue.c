// The service of tongues.wit, in C, over what wit-bindgen generates. Arguments are the callee's to free,
// results are freed by the generated code after they were read.

#include <stdlib.h>
#include <string.h>

#include "speaker.h"

typedef exports_tests_tongues_tongue_person_t person_t;
typedef exports_tests_tongues_tongue_shape_t shape_t;

// Text that grows.
typedef struct {
  uint8_t *bytes;
  size_t len;
} text_t;

static void append(text_t *text, const void *bytes, size_t len) {
  text->bytes = realloc(text->bytes, text->len + len + 1);
  memcpy(text->bytes + text->len, bytes, len);
  text->len += len;
}

static void append_number(text_t *text, uint8_t number) {
  if (number >= 10) append_number(text, number / 10);
  char digit = '0' + number % 10;
  append(text, &digit, 1);
}

void exports_tests_tongues_tongue_greet(person_t *who, speaker_string_t *ret) {
  text_t text = {NULL, 0};
  append(&text, "hello, ", 7);
  append(&text, who->name.ptr, who->name.len);
  append(&text, " (", 2);
  append_number(&text, who->age);
  append(&text, "), also known as ", 17);
  for (size_t i = 0; i < who->nicknames.len; i++) {
    if (i > 0) append(&text, ", ", 2);
    append(&text, who->nicknames.ptr[i].ptr, who->nicknames.ptr[i].len);
  }
  ret->ptr = text.bytes;
  ret->len = text.len;
  exports_tests_tongues_tongue_person_free(who);
}

void exports_tests_tongues_tongue_echo(speaker_list_u8_t *payload, speaker_list_u8_t *ret) {
  *ret = *payload;
}

void exports_tests_tongues_tongue_scale(shape_t *it, float by, shape_t *ret) {
  *ret = *it;
  if (it->tag == EXPORTS_TESTS_TONGUES_TONGUE_SHAPE_CIRCLE) ret->val.circle = it->val.circle * by;
  if (it->tag == EXPORTS_TESTS_TONGUES_TONGUE_SHAPE_SQUARE) ret->val.square = it->val.square * by;
}

bool exports_tests_tongues_tongue_divide(int64_t a, int64_t b, int64_t *ret,
                                         exports_tests_tongues_tongue_refusal_t *err) {
  if (b == 0) {
    *err = EXPORTS_TESTS_TONGUES_TONGUE_REFUSAL_BY_ZERO;
    return false;
  }
  if (a == INT64_MIN && b == -1) {
    *err = EXPORTS_TESTS_TONGUES_TONGUE_REFUSAL_TOO_LARGE;
    return false;
  }
  *ret = a / b;
  return true;
}

void exports_tests_tongues_tongue_reverse(exports_tests_tongues_tongue_list_person_t *people,
                                          speaker_string_t *note,
                                          exports_tests_tongues_tongue_list_person_t *ret) {
  for (size_t i = 0; i < people->len / 2; i++) {
    person_t other = people->ptr[people->len - 1 - i];
    people->ptr[people->len - 1 - i] = people->ptr[i];
    people->ptr[i] = other;
  }
  for (size_t i = 0; note != NULL && i < people->len; i++) {
    speaker_list_string_t *nicknames = &people->ptr[i].nicknames;
    size_t len = nicknames->len + 1;
    // An empty list may point to nothing that could grow.
    speaker_string_t *more = malloc(len * sizeof(speaker_string_t));
    memcpy(more, nicknames->ptr, nicknames->len * sizeof(speaker_string_t));
    if (nicknames->len > 0) free(nicknames->ptr);
    speaker_string_dup_n(&more[len - 1], (char *)note->ptr, note->len);
    nicknames->ptr = more;
    nicknames->len = len;
  }
  if (note != NULL) speaker_string_free(note);
  *ret = *people;
}

exports_tests_tongues_tongue_rights_t exports_tests_tongues_tongue_missing(
    exports_tests_tongues_tongue_rights_t has) {
  return ~has & (EXPORTS_TESTS_TONGUES_TONGUE_RIGHTS_READ | EXPORTS_TESTS_TONGUES_TONGUE_RIGHTS_WRITE |
                 EXPORTS_TESTS_TONGUES_TONGUE_RIGHTS_EXECUTE);
}

void exports_tests_tongues_tongue_swap(uint32_t a, uint32_t b, speaker_tuple2_char32_char32_t *ret) {
  ret->f0 = b;
  ret->f1 = a;
}
