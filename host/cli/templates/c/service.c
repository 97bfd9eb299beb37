// Greets people. The interface is in wit/{{name}}.wit; 'make' generates build/plugin.h.
//
// Arguments belong to the function, which frees them. Results are freed by who has read them.

#include <stdlib.h>
#include <string.h>

#include "plugin.h"

bool exports_demo_{{module}}_{{module}}_greet(plugin_string_t *name, plugin_string_t *ret,
                                              exports_demo_{{module}}_{{module}}_refusal_t *err) {
  if (name->len == 0) {
    *err = EXPORTS_DEMO_{{MODULE}}_{{MODULE}}_REFUSAL_NAMELESS;
    return false;
  }
  static const char before[] = "Hello, ";
  size_t hello = sizeof before - 1;
  ret->len = hello + name->len + 1;
  ret->ptr = malloc(ret->len);
  if (ret->ptr == NULL) abort();
  memcpy(ret->ptr, before, hello);
  memcpy(ret->ptr + hello, name->ptr, name->len);
  ret->ptr[ret->len - 1] = '!';
  plugin_string_free(name);
  return true;
}
