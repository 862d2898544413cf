#include "runtime/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	const char *text;
	bool retry;
} errors[] = {
#define X(n, r, t) {"RT_" #n, t, r},
	RT_ERR_LIST(X)
#undef X
};

const char *rt_err_name(rt_err err)
{
	return (unsigned)err < RT_ERR_COUNT ? errors[err].name : "RT_E_?";
}

const char *rt_err_text(rt_err err)
{
	return (unsigned)err < RT_ERR_COUNT ? errors[err].text : "unknown error";
}

bool rt_err_may_retry(rt_err err)
{
	return (unsigned)err < RT_ERR_COUNT && errors[err].retry;
}

/* Calls elsewhere; here the functions themselves are meant. */
#undef rt_errinfo_set
#undef rt_errinfo_wrap

rt_err rt_errinfo_set(struct rt_errinfo *info, rt_err code, const char *fmt, ...)
{
	if (info == NULL) {
		return code;
	}
	va_list args;
	va_start(args, fmt);
	vsnprintf(info->text, sizeof(info->text), fmt, args);
	va_end(args);
	info->code = code;
	return code;
}

rt_err rt_errinfo_wrap(struct rt_errinfo *info, rt_err code, const char *fmt, ...)
{
	if (info == NULL) {
		return code;
	}
	char inner[RT_ERRINFO_TEXT];
	memcpy(inner, info->text, sizeof(inner));
	inner[sizeof(inner) - 1] = '\0';
	va_list args;
	va_start(args, fmt);
	int used = vsnprintf(info->text, sizeof(info->text), fmt, args);
	va_end(args);
	if (used >= 0 && (size_t)used < sizeof(info->text)) {
		snprintf(info->text + used, sizeof(info->text) - (size_t)used, ": %.*s",
			(int)(sizeof(info->text) - (size_t)used), inner);
	}
	info->code = code;
	return code;
}
